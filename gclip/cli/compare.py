"""``gclip compare``: the main job. Strategies against each other, paired, with figures."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.failures import failure_code
from gclip.cli.interrupts import going_on, interruptible
from gclip.cli.options import (
    FiguresFolder,
    Fleet,
    Json,
    KeptPlace,
    NoFigures,
    Player,
    Plugins,
    Strategies,
    TableFormat,
    Workers,
    check_format,
    expand,
    load_plugins,
    parse_seeds,
    with_players,
)
from gclip.cli.setting import Setting
from gclip.execution.compare import USUAL_BASELINES
from gclip.execution.progress import RunsDisplay
from gclip.results.table_text import comparison_table, notes
from gclip.text import screen
from gclip.text.export import TEXT, exported
from gclip.text.names import in_a_name

if TYPE_CHECKING:
    from gclip.execution import Comparison
    from gclip.training import RunConfig

TAME = "--lr 0.02"
"""The option that takes the default comparison away from the edge of stability."""
_LONGEST_NAMES = 60
"""Strategies are named in a folder's name as far as this many letters do; else they are counted."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


@expand
def compare(
    run: Setting,
    place: KeptPlace,
    strategy: Strategies = None,
    player: Player = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="N|LIST",
            help="How many, or which: 10, or 0,1,5.",
            show_default="as many as can show a difference: 10 for up to 26 strategies, 11 for up "
            "to 52",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="STRATEGY",
            help="What differences are to.",
            show_default="none if it takes part, else norm, else the first that ships with gclip",
        ),
    ] = None,
    workers: Workers = None,
    fleet: Fleet = None,
    plugin: Plugins = None,
    out: FiguresFolder = None,
    no_figures: NoFigures = False,
    format: TableFormat = TEXT,
    json: Json = False,
) -> None:
    """Train strategies on the same seeds and compare them: a table, and figures.

    With no options: all registered strategies, on digits, with as many seeds as so many
    comparisons need (11). The same command again reads the runs that are there and makes those
    that are not; so does one after Ctrl-C or a kill, which goes on from where long runs were.

    \b
    Examples:
      gclip compare
      gclip compare -s none -s agc -s "norm(max_norm=0.1)" --seeds 5
      gclip compare --plugin my_strategies.py -s mine -s norm
      gclip compare --task cifar10 --data cifar-10-batches-py --epochs 10
      gclip compare -s none -s norm --format latex > table.tex
      gclip compare --task adding -s none -s norm -s value -s agc
      gclip compare --task gan-digits -s none --player generator=agc --player discriminator=norm
    """
    place.alone()
    check_format(format, json)
    how = place.execution(workers, fleet)
    display = RunsDisplay(then="" if no_figures else "figures")

    def message() -> str:
        left = display.total - display.stored
        return (
            f"{display.stored} of {screen.plural(display.total, 'run')} are finished and kept in "
            f"{place.store}; the same command makes the other {left}{going_on(place.store)}"
        )

    with interruptible(message), display:
        display.load("torch")
        import gclip
        from gclip import execution
        from gclip.execution.compare import default_seeds, paired_configs
        from gclip.training import RunConfig

        plugins = load_plugins(plugin)
        chosen = with_players(strategy, player)
        names = tuple(chosen) if chosen else gclip.names()
        seed_list = default_seeds(names) if seeds is None else parse_seeds(seeds)
        base = run.config()
        against = execution.choose_baseline(names, baseline)
        configs = paired_configs(names, seed_list, base)
        display.total = len(configs)
        display.doing("reading data")
        how = dataclasses.replace(how, data=run.data, plugins=plugins, listener=display)
        comparison = execution.compare_configs(configs, against, place.store, how)
        nowhere = not comparison.store.writable and out is None and not no_figures
        no_figures = no_figures or nowhere
        if not no_figures:
            display.doing("drawing figures")
        files = (
            []
            if no_figures
            else _draw(comparison, out or place.store / "figures" / figures_folder(comparison))
        )
    if nowhere:
        screen.note(
            f"gclip: {place.store} is read-only: no figures are drawn; --out DIR draws them"
        )
    near_edge = base.replace(strategy="none", seed=0, watch="") == RunConfig()
    if json:
        screen.echo_json(_as_json(comparison, base, display, files))
    elif format != TEXT:
        screen.echo(_exported(comparison, base, format))
    else:
        _print(comparison, base, seed_list, display, files, near_edge, baseline)
    if comparison.failed:
        raise typer.Exit(failure_code(run.message for run in comparison.failed))


def _draw(comparison: Comparison, folder: Path) -> list[Path]:
    from gclip import figures

    if not comparison.keys:
        return []
    return list(figures.draw_all(comparison.store.path, folder, keys=comparison.keys, usual=True))


def _print(
    comparison: Comparison,
    base: RunConfig,
    seeds: tuple[int, ...],
    display: RunsDisplay,
    files: list[Path],
    near_edge: bool,
    baseline_option: str | None,
) -> None:
    screen.echo_wrapped(f"{setting_text(base)}, {screen.plural(len(seeds), 'seed')}")
    screen.echo()
    metric = comparison.metric
    screen.echo_table(comparison_table(comparison.table, comparison.baseline, base.split, metric))
    screen.echo()
    for sentence in notes(comparison.table, comparison.baseline, comparison.same, metric):
        screen.echo_wrapped(sentence)
    if baseline_option is None and comparison.baseline != USUAL_BASELINES[0]:
        screen.echo_wrapped(_why_baseline(comparison))
    if near_edge:
        screen.echo_wrapped(
            "These defaults sit near the edge of stability, where clipping decides whether "
            f"training works.\nA tame setting: gclip compare {TAME}"
        )
    for run in comparison.failed:
        screen.echo_wrapped(f"failed: {run.config.strategy} seed {run.config.seed}: {run.message}")
    store = comparison.store.path
    screen.echo_wrapped(
        f"{screen.plural(display.total, 'run')}: {display.read} read from {store}, "
        f"{display.trained} trained"
    )
    if files:
        drawn = ", ".join(sorted({path.stem for path in files}))
        kinds = " and ".join(sorted({path.suffix[1:].upper() for path in files}))
        screen.echo_wrapped(f"figures in {files[0].parent} ({kinds}): {drawn}")


def _exported(comparison: Comparison, base: RunConfig, format: str) -> str:
    """The table for a paper or another program."""
    table, baseline, metric = comparison.table, comparison.baseline, comparison.metric
    return exported(
        comparison_table(table, baseline, base.split, metric),
        [{str(k): v for k, v in row.items()} for row in table.to_dict("records")],
        [setting_text(base), *notes(table, baseline, comparison.same, metric)],
        format,
    )


def figures_folder(comparison: Comparison) -> str:
    """The figures' folder, after what was compared; other strategies, seeds or settings have
    another."""
    configs = [run.config for run in comparison.outcomes]
    strategies = list(dict.fromkeys(config.strategy for config in configs))
    seeds = len({config.seed for config in configs})
    names = "+".join(in_a_name(text) for text in strategies)
    if len(names) > _LONGEST_NAMES:
        names = f"{len(strategies)}-strategies"
    digest = hashlib.sha256(" ".join(sorted(config.key for config in configs)).encode())
    first = configs[0]
    seeds_text = screen.plural(seeds, "seed").replace(" ", "-")
    what = "-".join(in_a_name(text) for text in (first.task, first.model) if text)
    return f"{what}-{names}-{seeds_text}-{digest.hexdigest()[:8]}"


def _why_baseline(comparison: Comparison) -> str:
    """Why differences are not to ``none``."""
    from gclip.execution.compare import baseline_reason

    spellings = list(dict.fromkeys(run.config.strategy for run in comparison.outcomes))
    reason = baseline_reason(spellings, comparison.baseline)
    return f"Differences are to {comparison.baseline}, {reason}."


def setting_text(config: RunConfig) -> str:
    """What was trained, in a line: ``digits, lenet, sgd lr 0.1, batch 32, 5 epochs``."""
    model = [config.model] if config.model else []
    parts = [config.task, *model, f"{config.optimizer} lr {config.lr:g}"]
    if config.schedule != "constant":
        parts.append(config.schedule)
    if config.fraction != 1:
        parts.append(f"{screen.percent(config.fraction, 0)} % of {_examples(config)}")
    batch = f"batch {config.batch_size}"
    if config.accumulate > 1:
        batch += f" × {config.accumulate}"
    parts += [batch, screen.plural(config.epochs, "epoch")]
    if config.precision != "fp32":
        parts.append(config.precision)
    return ", ".join(parts)


def _examples(config: RunConfig) -> str:
    from gclip.training.metric import ACCURACY
    from gclip.training.tasks import metric_of_task

    measured = metric_of_task(config.task)
    return "the images" if measured.name == ACCURACY.name else "the training data"


def _as_json(
    comparison: Comparison, base: RunConfig, display: RunsDisplay, files: list[Path]
) -> dict[str, Any]:
    from gclip.results.statistics import seeds_needed

    return {
        "setting": setting_text(base),
        "baseline": comparison.baseline,
        "store": str(comparison.store.path),
        "runs": {
            "total": display.total,
            "read": display.read,
            "trained": display.trained,
            "failed": [
                {
                    "strategy": run.config.strategy,
                    "seed": run.config.seed,
                    "message": run.message,
                }
                for run in comparison.failed
            ],
        },
        "metric": None if comparison.metric is None else comparison.metric.to_dict(),
        "table": comparison.table.to_dict("records"),
        "same": [list(group) for group in comparison.same],
        "seeds_needed": seeds_needed(max(len(comparison.table) - 1, 0)),
        "keys": list(comparison.keys),
        "figures": [str(path) for path in files],
    }
