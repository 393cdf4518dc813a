"""``gclip survey``: how large are the gradients, and where should a threshold start?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.compare import setting_text
from gclip.cli.figures import save_figure
from gclip.cli.interrupts import interruptible
from gclip.cli.options import (
    FiguresFolder,
    Json,
    NoFigures,
    Place,
    Plugins,
    Strategies,
    expand,
    load_data,
    load_plugins,
    parse_seeds,
)
from gclip.cli.progress import StepsDisplay
from gclip.cli.setting import Setting
from gclip.errors import UsageError
from gclip.text import screen

if TYPE_CHECKING:
    from gclip.survey.suggestions import Suggestions
    from gclip.survey.survey import Survey
    from gclip.training.norm_survey import NormSurvey


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("survey")(survey)


@expand
def survey(
    run: Setting,
    place: Place,
    strategy: Strategies = None,
    player: Annotated[
        str | None,
        typer.Option(
            "--watch-player",
            metavar="NAME",
            help="Whose norms are watched, where a task trains several networks.",
            show_default="the first",
        ),
    ] = None,
    clip_rate: Annotated[
        float,
        typer.Option("--clip-rate", help="Share of the steps that a threshold is to limit."),
    ] = 0.1,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Steps to watch.", show_default="300, or all there are"),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option("--seeds", help="How many, or which: 10, or 0,1,5.", metavar="N|LIST"),
    ] = "1",
    plugin: Plugins = None,
    out: FiguresFolder = None,
    no_figures: NoFigures = False,
    json: Json = False,
) -> None:
    """Train a little without clipping, and suggest a threshold for each strategy.

    The norms watched are replayed through every strategy, for the value of its main threshold that
    would limit about --clip-rate of the steps. Nothing is kept in the store but the figure.

    \b
    Examples:
      gclip survey --lr 0.01
      gclip survey --lr 0.01 -s norm -s agc -s "percentile(scope=tensor)" --clip-rate 0.05
      gclip survey --task cifar10 --data cifar-10-batches-py --seeds 3
      gclip survey --task gan-digits --watch-player discriminator
    """
    place.alone(instead="")
    _check(clip_rate, steps)
    seed_list = parse_seeds(seeds)
    surveyed: list[NormSurvey] = []
    display = StepsDisplay(len(seed_list), then="replaying")
    with interruptible(lambda: "nothing is kept; the same command begins again"), display:
        display.load("torch")
        import gclip
        from gclip.survey.survey import pooled
        from gclip.training import resolve_device
        from gclip.training.norm_survey import STEPS, survey_norms

        load_plugins(plugin)
        chosen = [_parsed(each) for each in strategy] if strategy else None
        config = run.config(strategy="none")
        device = resolve_device(place.device)
        display.doing("reading data")
        config, dataset = load_data(config, run.data)
        folder = out or place.store / "figures"
        if not no_figures:
            _check_writable(folder)
        for seed in seed_list:
            display.begin(f"watching seed {seed}")
            surveyed.append(
                survey_norms(
                    config.replace(seed=seed),
                    dataset,
                    player=player,
                    steps=STEPS if steps is None else steps,
                    strategies=chosen,
                    device=str(device),
                    threads=place.threads,
                    on_step=display.update,
                )
            )
        display.end()
        display.doing("replaying the norms through each strategy")
        surveys = [each.survey for each in surveyed]
        suggestions = pooled(surveys, clip_rate)
        setting = setting_text(config)
        if not no_figures:
            display.doing("drawing the figure")
        files = [] if no_figures else _draw(surveys, suggestions, setting, folder)
    notes = _notes(surveyed, seed_list)
    if surveyed[0].player:
        notes.insert(0, f"The norms are those of the player {surveyed[0].player}.")
    if json:
        screen.echo_json(
            {
                "gclip": gclip.__version__,
                "setting": setting,
                "seeds": list(seed_list),
                **suggestions.as_dict(),
                "notes": [*suggestions.notes, *notes],
                "figures": [str(path) for path in files],
            }
        )
        return
    screen.echo_wrapped(f"{setting}, {screen.plural(len(seed_list), 'seed')}")
    screen.echo()
    screen.echo(suggestions.text(screen.width()))
    for note in notes:
        screen.echo_wrapped(note)
    if files:
        kinds = " and ".join(path.suffix[1:].upper() for path in files)
        screen.echo_wrapped(f"figure in {folder} ({kinds}): survey")


def _check(clip_rate: float, steps: int | None) -> None:
    if not 0 < clip_rate < 1:
        raise UsageError(f"--clip-rate must be above 0 and below 1, but got {clip_rate:g}")
    if steps is not None and steps < 1:
        raise UsageError(f"--steps must be at least 1, but got {steps}")


def _parsed(spelling: str) -> Any:
    from gclip import Strategy, parse

    parsed = parse(spelling)
    if not isinstance(parsed, Strategy):
        raise UsageError(f"a survey looks at one strategy at a time, not at a chain: {parsed}")
    return parsed


def _check_writable(folder: Path) -> None:
    """Known before anything trains: whether the figure can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write to the folder '{folder}': {error.strerror}; choose another with --out"
        ) from error


def _draw(
    surveys: list[Survey], suggestions: Suggestions, setting: str, folder: Path
) -> list[Path]:
    from gclip.survey.survey import draw_surveys

    return save_figure(draw_surveys(surveys, suggestions, setting), folder, "survey")


def _notes(surveyed: list[NormSurvey], seeds: tuple[int, ...]) -> list[str]:
    """What makes these norms doubtful: they are of trainings that went wrong without clipping."""
    notes = []
    for seed, each in zip(seeds, surveyed, strict=True):
        before, after = each.losses
        if each.diverged:
            notes.append(f"Seed {seed} diverged: {each.diverged}.")
        elif not after < 0.98 * before:
            notes.append(
                f"Seed {seed} did not learn: its loss went from {before:.2f} to {after:.2f}."
            )
    if notes:
        notes.append(
            "Norms of a training that fails say little of one that works: try a lower --lr, or "
            "fewer --steps."
        )
    return notes
