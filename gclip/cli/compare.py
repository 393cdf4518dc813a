"""``gclip compare``: the main job. Strategies against each other, paired, with figures."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.interrupts import interruptible
from gclip.cli.options import (
    FiguresFolder,
    Fleet,
    Json,
    Place,
    Plugins,
    Strategies,
    Workers,
    expand,
    load_plugins,
    parse_seeds,
)
from gclip.cli.setting import Setting
from gclip.execution.compare import USUAL_BASELINES
from gclip.execution.progress import RunsDisplay
from gclip.results.table_text import comparison_table, notes
from gclip.text import screen

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
    place: Place,
    strategy: Strategies = None,
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
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Draw no figures.")] = False,
    json: Json = False,
) -> None:
    """Train strategies on the same seeds and compare them: a table, and figures.

    With no options: all registered strategies, on digits, with as many seeds as so many
    comparisons need (11). The same command again reads the runs that are there and makes those
    that are not; so does one after Ctrl-C.

    \b
    Examples:
      gclip compare
      gclip compare -s none -s agc -s "norm(max_norm=0.1)" --seeds 5
      gclip compare --plugin my_strategies.py -s mine -s norm
      gclip compare --task cifar10 --data cifar-10-batches-py --epochs 10
    """
    place.alone()
    settings = place.execution(workers, fleet)
    display = RunsDisplay(then="" if no_figures else "figures")

    def kept() -> str:
        left = display.total - display.kept
        return (
            f"{display.kept} of {screen.plural(display.total, 'run')} are finished and kept in "
            f"{place.store}; the same command makes the other {left}"
        )

    with interruptible(kept), display:
        display.load("torch")
        import gclip
        from gclip import execution
        from gclip.execution.compare import default_seeds, paired_configs
        from gclip.training import RunConfig

        plugins = load_plugins(plugin)
        names = tuple(strategy) if strategy else gclip.names()
        chosen = default_seeds(names) if seeds is None else parse_seeds(seeds)
        base = run.config()
        reference = execution.choose_baseline(names, baseline)
        configs = paired_configs(names, chosen, base)
        display.total = len(configs)
        display.doing("reading images")
        settings = dataclasses.replace(settings, data=run.data, plugins=plugins, listener=display)
        found = execution.compare_configs(configs, reference, place.store, settings)
        if not no_figures:
            display.doing("drawing figures")
        drawn = [] if no_figures else _draw(found, out or place.store / "figures" / folder(found))
    near_edge = base.replace(strategy="none", seed=0) == RunConfig()
    if json:
        screen.echo_json(_as_json(found, base, display, drawn))
    else:
        _print(found, base, chosen, display, drawn, near_edge, baseline)
    if found.failed:
        raise typer.Exit(1)


def _draw(found: Comparison, out: Path) -> list[Path]:
    from gclip import figures

    if not found.keys:
        return []
    return list(figures.draw_all(found.store.path, out, keys=found.keys))


def _print(
    found: Comparison,
    base: RunConfig,
    seeds: tuple[int, ...],
    display: RunsDisplay,
    drawn: list[Path],
    near_edge: bool,
    asked_baseline: str | None,
) -> None:
    screen.echo_wrapped(f"{describe(base)}, {screen.plural(len(seeds), 'seed')}")
    screen.echo()
    screen.echo_table(comparison_table(found.table, found.baseline, base.split))
    screen.echo()
    for said in notes(found.table, found.baseline, found.same):
        screen.echo_wrapped(said)
    if asked_baseline is None and found.baseline != USUAL_BASELINES[0]:
        screen.echo_wrapped(_why_baseline(found))
    if near_edge:
        screen.echo_wrapped(
            "These defaults sit near the edge of stability, where clipping decides whether "
            f"training works.\nA tame setting: gclip compare {TAME}"
        )
    for run in found.failed:
        screen.echo_wrapped(f"failed: {run.config.strategy} seed {run.config.seed}: {run.message}")
    store = found.store.path
    screen.echo_wrapped(
        f"{screen.plural(display.total, 'run')}: {display.read} read from {store}, "
        f"{display.trained} trained"
    )
    if drawn:
        files = ", ".join(sorted({path.stem for path in drawn}))
        kinds = " and ".join(sorted({path.suffix[1:].upper() for path in drawn}))
        screen.echo_wrapped(f"figures in {drawn[0].parent} ({kinds}): {files}")


def folder(found: Comparison) -> str:
    """The figures' folder, after what was compared; other strategies, seeds or settings have
    another."""
    configs = [run.config for run in found.outcomes]
    strategies = list(dict.fromkeys(config.strategy for config in configs))
    seeds = len({config.seed for config in configs})
    plain = ["".join(c if c.isalnum() or c in "._" else "-" for c in s) for s in strategies]
    names = "+".join(text.strip("-") for text in plain)
    if len(names) > _LONGEST_NAMES:
        names = f"{len(strategies)}-strategies"
    digest = hashlib.sha256(" ".join(sorted(config.key for config in configs)).encode())
    first = configs[0]
    seeds_said = screen.plural(seeds, "seed").replace(" ", "-")
    return f"{first.task}-{first.model}-{names}-{seeds_said}-{digest.hexdigest()[:8]}"


def _why_baseline(found: Comparison) -> str:
    """Why differences are not to ``none``."""
    from gclip.execution.compare import baseline_reason

    spellings = list(dict.fromkeys(run.config.strategy for run in found.outcomes))
    return f"Differences are to {found.baseline}, {baseline_reason(spellings, found.baseline)}."


def describe(config: RunConfig) -> str:
    """What was trained, in a line: ``digits, lenet, sgd lr 0.1, batch 32, 5 epochs``."""
    parts = [config.task, config.model, f"{config.optimizer} lr {config.lr:g}"]
    if config.schedule != "constant":
        parts.append(config.schedule)
    if config.fraction != 1:
        parts.append(f"{screen.percent(config.fraction, 0)} % of the images")
    batch = f"batch {config.batch_size}"
    if config.accumulate > 1:
        batch += f" × {config.accumulate}"
    parts += [batch, screen.plural(config.epochs, "epoch")]
    if config.precision != "fp32":
        parts.append(config.precision)
    return ", ".join(parts)


def _as_json(
    found: Comparison, base: RunConfig, display: RunsDisplay, drawn: list[Path]
) -> dict[str, Any]:
    from gclip.results.statistics import seeds_needed

    return {
        "setting": describe(base),
        "baseline": found.baseline,
        "store": str(found.store.path),
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
                for run in found.failed
            ],
        },
        "table": found.table.to_dict("records"),
        "same": [list(group) for group in found.same],
        "seeds_needed": seeds_needed(max(len(found.table) - 1, 0)),
        "keys": list(found.keys),
        "figures": [str(path) for path in drawn],
    }
