"""``gclip study``: experiments that search, and those that were begun."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gclip.cli import screen
from gclip.cli.options import (
    Json,
    Place,
    Plugins,
    Setting,
    StoreFolder,
    expand,
    load_data,
    load_plugins,
)
from gclip.cli.progress import RunsDisplay
from gclip.errors import UsageError

if TYPE_CHECKING:
    from gclip.studies.thresholds import Outcome
    from gclip.training import RunConfig

app = typer.Typer(no_args_is_help=True, help="Tune strategies with Optuna, and look at studies.")


@app.command("run")
@expand
def run(
    name_of_study: Annotated[
        str, typer.Argument(metavar="STUDY", help="Which study: thresholds.", show_default=False)
    ],
    run: Setting,
    place: Place,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            "-s",
            metavar="STRATEGY",
            help='What to tune; settings in the spelling are held: "agc(scope=tensor)".',
            show_default=False,
        ),
    ],
    trials: Annotated[
        int, typer.Option("--trials", help="In all, those of earlier commands included.")
    ] = 20,
    fixed_lr: Annotated[
        bool, typer.Option("--fixed-lr", help="Leave the learning rate alone.")
    ] = False,
    lr_range: Annotated[
        str | None,
        typer.Option(
            "--lr-range",
            metavar="LOW,HIGH",
            help="Learning rates to search; by default from a 30th to 5 times --lr.",
        ),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            "--sampler", metavar="NAME", help="tpe, or random (to compare equal budgets)."
        ),
    ] = "tpe",
    seed: Annotated[
        int, typer.Option("--seed", help="Of the sampler, and of the trials' tuning seed.")
    ] = 0,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="The study's name; after strategy and task by default.", metavar="NAME"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Trials at a time; one a core by default, one on a GPU."),
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Tune a strategy's parameters, jointly with the learning rate, on validation images.

    The same command again resumes, and ends at the same total of trials.

    \b
    Examples:
      gclip study run thresholds --strategy agc --trials 20
      gclip study run thresholds -s norm --fixed-lr --name norm-only
    """
    from gclip import studies
    from gclip.results import Store

    study = studies.get(name_of_study)
    plugins = load_plugins(plugin)
    base, dataset = load_data(run.config(), run.data)
    store = Store(place.store, create=True)
    display = RunsDisplay(trials, noun="trial")

    def kept() -> str:
        return f"the trials that ended are kept in {place.store}; the same command goes on"

    with screen.interruptible(kept), display:
        outcome = study.run(
            strategy,
            trials,
            base=base,
            store=store,
            name=name,
            lr_range=_lr_range(lr_range),
            fixed_lr=fixed_lr,
            sampler=sampler,
            seed=seed,
            workers=workers,
            device=place.device,
            data=run.data,
            dataset=dataset,
            plugins=plugins,
            threads=place.threads,
            on_event=display,
        )
    if json:
        screen.say_json(_as_json(outcome))
    else:
        for line in _report(outcome, run, plugins, place.store):
            screen.say(line)
    if outcome.best is None:
        raise typer.Exit(1)


@app.command("list")
def list_studies(store: StoreFolder = Path("runs"), json: Json = False) -> None:
    """List the studies that can be run, and those that a store holds with their best trials.

    \b
    Examples:
      gclip study list
      gclip study list --store runs --json
    """
    from gclip import studies
    from gclip.running.coordinator import studies_in, summary

    known = [{"study": name, "question": studies.question(name)} for name in studies.names()]
    begun = [summary(path) for path in studies_in(store).values()]
    if json:
        screen.say_json({"studies": known, "begun": begun})
        return
    screen.say("To run:")
    for each in known:
        screen.say(f"  {each['study']}: {each['question']}")
    if not begun:
        screen.say(f"None was begun in {store}.")
        return
    screen.say(f"\nBegun in {store}:")
    table = screen.plain_table("name", "trials", "failed", "best", "with")
    table.columns[-1].overflow = "fold"
    for found in begun:
        table.add_row(
            found["name"],
            str(found["trials"]),
            str(found["failed"]),
            f"{screen.percent(found['score'])} %",
            found["best"] or "–",
        )
    screen.show(table)


def _report(outcome: Outcome, run: Setting, plugins: tuple[str, ...], store: Path) -> list[str]:
    counts = f"{screen.plural(outcome.trials, 'trial')}, {outcome.diverged} diverged"
    if outcome.failed:
        counts += f", {outcome.failed} failed"
    lines = [f"study {outcome.name}: {counts}; kept in {store}"]
    best = outcome.best
    if best is None:
        return [*lines, "No trial was completed, so there is no best."]
    options = _options(best, run, plugins)
    return [
        *lines,
        f"best: {best.strategy} at lr {best.lr:g}, {screen.percent(outcome.score)} % "
        f"{best.split} accuracy (trial {outcome.number})",
        "",
        "To use it:",
        f'  gclip train -s "{best.strategy}"{options}',
        f'  clipper = gclip.Clipper(model, "{best.strategy}")    # in Python, with lr={best.lr:g}',
        "",
        f"This score is the best of {outcome.trials} tries with one seed, so it looks better than "
        "it is.",
        "On fresh seeds and test images:",
        f'  gclip compare -s none -s "{best.strategy}"{options}',
    ]


def _options(best: RunConfig, run: Setting, plugins: tuple[str, ...]) -> str:
    """The options that make a command train what the trial did, apart from seed and split."""
    import dataclasses
    import shlex

    parts = []
    for field in dataclasses.fields(Setting):
        value = getattr(run, field.name)
        if value is None or field.name == "lr":
            continue
        flag = "--" + field.name.replace("_", "-")
        if isinstance(value, bool):
            parts.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            parts.append(f"{flag} {shlex.quote(str(value))}")
    parts.append(f"--lr {best.lr:g}")
    parts += [f"--plugin {shlex.quote(plugin)}" for plugin in plugins]
    return " " + " ".join(parts)


def _as_json(outcome: Outcome) -> dict[str, object]:
    import json

    return {
        "study": outcome.name,
        "trials": outcome.trials,
        "diverged": outcome.diverged,
        "failed": outcome.failed,
        "score": outcome.score,
        "trial": outcome.number,
        "best": None if outcome.best is None else json.loads(outcome.best.to_json()),
    }


def _lr_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--lr-range takes LOW,HIGH such as 0.001,0.5, but got {text!r}") from None
    return low, high
