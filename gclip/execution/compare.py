"""Strategies against each other: the same seeds for all, one table.

Two runs with one seed start from the same weights and see the same batches whatever their
strategy, so every comparison is paired by seed.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.core.numbers import bounded
from gclip.errors import UsageError, unknown
from gclip.execution.events import Listener, ignore
from gclip.execution.execution import CHECKPOINT_EVERY, MOST_SEEDS, Execution
from gclip.execution.fleet_plan import FleetSize
from gclip.execution.run_all import train_missing
from gclip.results.reading import reading_once

if TYPE_CHECKING:
    from torch import nn

    from gclip.core.players import Players
    from gclip.core.strategy import Chain, Strategy
    from gclip.execution.comparison import Comparison
    from gclip.results import Store
    from gclip.training import Problem, RunConfig

_VARIED = ("strategy", "seed", "code", "model_code", "data", "selection")
"""What `compare` fills in for each run."""


def paired_configs(
    strategies: Sequence[str], seeds: Iterable[int], base: RunConfig
) -> list[RunConfig]:
    """One config for every strategy and seed, otherwise like `base`.

    Seed by seed, so that a comparison that is interrupted has whole pairs.

    Raises:
        UsageError: an unknown strategy, one named twice, or no strategy or seed at all.
    """
    from gclip.core import registry

    parsed = [registry.parse_for_run(text) for text in strategies]
    spellings = [str(each) for each in parsed]
    chosen = list(seeds)
    _check_apart(parsed)
    for what, values in (("strategy", spellings), ("seed", chosen)):
        if not values:
            raise UsageError(f"a comparison needs at least one {what}")
        counted: Counter[object] = Counter(values)
        twice = next((value for value, times in counted.items() if times > 1), None)
        if twice is not None:
            raise UsageError(f"the {what} {twice} is there twice; name each {what} once")
    return [base.replace(strategy=spelling, seed=seed) for seed in chosen for spelling in spellings]


def _check_apart(strategies: Iterable[Strategy | Chain | Players]) -> None:
    """Raises `UsageError` for a chain of one strategy beside that strategy: one and the same."""
    from gclip.core.strategy import Chain

    known: dict[str, str] = {}
    for each in strategies:
        alone = isinstance(each, Chain) and len(each.strategies) == 1
        own = str(each.strategies[0]) if isinstance(each, Chain) and alone else str(each)
        other = known.setdefault(own, str(each))
        if other != str(each):
            raise UsageError(f"{other} and {each} are the same strategy; name it once")


def default_seeds(strategies: Sequence[str]) -> tuple[int, ...]:
    """As many seeds as it takes to show a difference, after correction, between each of these
    strategies and one of them: at least ten, eleven for more than 26 strategies."""
    from gclip.results.statistics import seeds_needed

    return tuple(range(seeds_needed(max(len(strategies) - 1, 0))))


USUAL_BASELINES = ("none", "norm")
"""The strategies that differences are to where they take part, the first of them first."""


def choose_baseline(strategies: Sequence[str], baseline: str | None) -> str:
    """The strategy that differences are to.

    It is the one asked for; else ``none``; else ``norm`` (whatever its settings); else the first
    that ships with gclip, so that nobody's own method is the measure of itself; else the first.
    """
    from gclip.core import registry
    from gclip.core.strategy import Strategy

    parsed = [registry.parse_for_run(text) for text in strategies]
    spellings = [str(each) for each in parsed]
    if baseline is None:
        for usual in USUAL_BASELINES:
            named = [str(e) for e in parsed if isinstance(e, Strategy) and e.name == usual]
            if named:
                return usual if usual in named else named[0]
        shipped = (str(each) for each in parsed if _ships(each))
        return next(shipped, spellings[0])
    wanted = str(registry.parse_for_run(baseline))
    if wanted not in spellings:
        unknown("baseline", wanted, spellings)
    return wanted


def baseline_reason(strategies: Sequence[str], baseline: str) -> str:
    """Why `choose_baseline` chose that, in words that follow the baseline's name."""
    from gclip.core import registry
    from gclip.core.strategy import Strategy

    parsed = [registry.parse_for_run(text) for text in strategies]
    chosen = registry.parse_for_run(baseline)
    if isinstance(chosen, Strategy) and chosen.name in USUAL_BASELINES:
        before = USUAL_BASELINES[: USUAL_BASELINES.index(chosen.name)]
        return f"because {' and '.join(before)} does not take part" if before else "as usual"
    absent = f"neither {' nor '.join(USUAL_BASELINES)} takes part"
    if _ships(chosen) and any(not _ships(each) for each in parsed):
        return f"the first named that ships with gclip: {absent}"
    if _ships(chosen):
        return f"the first named: {absent}"
    return "the first named: no strategy that ships with gclip takes part"


def _ships(strategy: Strategy | Chain | Players) -> bool:
    """Whether gclip brings the strategy along; a plugin's does not."""
    from gclip.core import registry
    from gclip.core.players import parts_of

    return all(registry.ships_with_gclip(type(part)) for part in parts_of(strategy))


def compare(
    strategies: str | Strategy | Chain | Iterable[str | Strategy | Chain] | None = None,
    seeds: int | Iterable[int] | None = None,
    *,
    problem: str | Problem | type[Problem] | None = None,
    model: str | Callable[..., nn.Module] | None = None,
    base: RunConfig | None = None,
    store: str | Path = "runs",
    workers: int | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    plugins: Iterable[str | Path] = (),
    baseline: str | None = None,
    threads: int = 1,
    fleet: FleetSize = "auto",
    checkpoint_every: float | None = CHECKPOINT_EVERY,
    progress: bool = True,
    on_event: Listener | None = None,
    **settings: Any,
) -> Comparison:
    """Train every strategy with every seed and compare them, pair by pair, as `gclip compare` does.

    ::

        found = gclip.compare(["none", "norm", "agc(clip_factor=0.02)"], seeds=10, lr=0.02)
        print(found)  # a table; a notebook shows it without print
        found.runs  # a data frame, one row a run

    The same call again only reads. Everything that can be known to be wrong beforehand is
    an error before the first run trains: strategies, data, device, a store that is read-only.

    Args:
        strategies: names, spellings such as ``"norm(max_norm=0.1)"`` or instances; all that are
            registered by default. One that is written in a notebook or in the running program is
            trained in this process, as other processes cannot load it.
        seeds: how many (0, 1, …), or which. By default as many as so many comparisons need to show
            a difference (`default_seeds`): ten for up to 26 strategies.
        problem: what they minimise: a task's spelling (``"cifar10"``, ``"adding(length=200)"``), a
            problem's class or an instance of it; ``task=`` is the same. One that is written in a
            notebook is trained in this process, as such strategies are.
        model: the network, where the problem takes one: its spelling, or the function that
            `gclip.register_model` has decorated.
        base: everything else about the runs; the task's defaults if left out.
        baseline: what differences are to; `choose_baseline` says which by default.
        plugins: files or modules that register strategies, problems or models. Those that
            `gclip.load_plugins` or an import has brought need not be named.
        progress: say on stderr how far the runs are.
        on_event: is told everything that happens instead.
        settings: fields of `gclip.training.RunConfig` that differ from `base`:
            ``optimizer="adam"``, ``lr=0.02``, ``epochs=3`` …

    The other arguments are those of `run_all`.

    Raises:
        UsageError: with one sentence that says what is wrong and what would be right.
    """
    from gclip.core import registry
    from gclip.core.plugins import load_plugins

    plugins = tuple(plugins)
    for plugin in plugins:
        load_plugins(plugin)
    base = _setting(base, {**settings, **_named(problem, model, settings)})
    chosen = registry.names() if strategies is None else _spelled(strategies)
    reference = choose_baseline(chosen, baseline) if chosen else ""
    configs = paired_configs(
        chosen, default_seeds(chosen) if seeds is None else _listed(seeds), base
    )
    with _display(len(configs), progress) if on_event is None else nullcontext(on_event) as listen:
        execution = Execution(
            workers=workers,
            device=device,
            data=data,
            plugins=plugins,
            threads=threads,
            fleet=fleet,
            checkpoint_every=checkpoint_every,
            listener=listen,
        )
        return compare_configs(configs, reference, store, execution)


@reading_once()
def compare_configs(
    configs: Sequence[RunConfig], baseline: str, store: str | Path, execution: Execution
) -> Comparison:
    """Train the runs of `paired_configs` and compare them; see `compare`.

    Args:
        configs: the runs, without the identity of their data.
        baseline: the strategy that differences are to.
        store: the folder that keeps the runs.
        execution: how they are trained; what strategies and models need is added to its plugins.

    Raises:
        UsageError: before the first run trains, for anything that can be known to be wrong.
    """
    import gclip.results as results
    from gclip.execution.comparison import Comparison
    from gclip.execution.plugin_paths import plugins_of, workers_that_reach
    from gclip.results import statistics
    from gclip.results.identical_runs import identical_runs
    from gclip.training import load_data, resolve_device

    needed, local = plugins_of(configs)
    workers = workers_that_reach(local, execution.workers)
    resolve_device(execution.device)
    dataset = load_data(configs[0].task, execution.data)
    configs = [config.with_data(dataset) for config in configs]
    opened = _opened(store, configs)
    execution = dataclasses.replace(
        execution, workers=workers, dataset=dataset, plugins=(*execution.plugins, *needed)
    )
    runs = train_missing(configs, opened, execution)
    keys = [run.config.key for run in runs]
    frame = results.load(opened, keys=keys)
    return Comparison(
        outcomes=tuple(runs),
        table=statistics.compare_table(frame, baseline=baseline),
        baseline=baseline,
        store=opened,
        same=identical_runs(opened, keys),
        metric=results.metric_of(frame),
    )


def _opened(store: str | Path, configs: Sequence[RunConfig]) -> Store:
    """The store to write to; one that is read-only does where it has every run already."""
    from gclip.results import Store

    try:
        return Store(store, create=True)
    except UsageError:
        if not os.path.isdir(store):
            raise
        readable = Store(store)
        if not all(readable.has(config.key) for config in configs):
            raise
        return readable


def _spelled(strategies: Any) -> tuple[str, ...]:
    from gclip.core.strategy import Chain, Strategy

    one = isinstance(strategies, str | Strategy | Chain)
    chosen = (strategies,) if one else tuple(strategies)
    for each in chosen:
        if not isinstance(each, str | Strategy | Chain):
            raise UsageError(
                'a strategy is a name, a spelling such as "norm(max_norm=0.1)" or an instance, '
                f"but got {each!r}"
            )
    return tuple(str(each) for each in chosen)


def _listed(seeds: int | Iterable[int]) -> tuple[int, ...]:
    """``10`` is the seeds 0 to 9."""
    if isinstance(seeds, int):
        return tuple(range(bounded("seeds", seeds, MOST_SEEDS)))
    return tuple(seeds)


def _named(problem: Any, model: Any, settings: dict[str, Any]) -> dict[str, str]:
    """The spellings of the problem and the model that are asked for."""
    from gclip.training import models
    from gclip.training.tasks import problem_meant

    found: dict[str, str] = {}
    if problem is not None:
        if "task" in settings:
            raise UsageError(
                f"task and problem are the same, and both are given ({settings['task']!r} and "
                f"{problem!r}); leave one of them out"
            )
        found["task"] = str(problem_meant(problem))
    if model is not None:
        found["model"] = model if model == "" else models.spelling_of(model)
    return found


def _setting(base: RunConfig | None, settings: dict[str, Any]) -> RunConfig:
    """What all runs share: `base`, or the defaults of the task that is asked for."""
    from gclip.training import RunConfig, task_defaults

    known = [field.name for field in dataclasses.fields(RunConfig) if field.name not in _VARIED]
    for name in settings:
        if name not in known:
            unknown("setting", name, known)
    if base is None:
        base = task_defaults(settings.get("task", "digits"))
    return base.replace(**settings)


def _display(total: int, wanted: bool) -> AbstractContextManager[Listener]:
    """How far the runs are, as the command says it."""
    from gclip.execution.progress import RunsDisplay

    return RunsDisplay(total) if wanted else nullcontext(ignore)
