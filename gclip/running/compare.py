"""Strategies against each other: the same seeds for all, one table.

Two runs with one seed start from the same weights and see the same batches whatever their
strategy, so every comparison is paired by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gclip.errors import UsageError, unknown
from gclip.fleet.plan import Asked
from gclip.running.events import Listener, ignore
from gclip.running.many import run_all

if TYPE_CHECKING:
    import pandas as pd

    from gclip import Chain, Strategy
    from gclip.results import Store
    from gclip.training import RunConfig, RunResult


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found.

    `table` has one row a strategy (`gclip.results.statistics.compare_table`); `runs` has every
    run, failed ones too, seed by seed; `baseline` is what the differences are to; `same` has the
    groups of strategies that made the same runs, bit for bit (`gclip.results.same.same_runs`).
    """

    runs: tuple[RunResult, ...]
    table: pd.DataFrame
    baseline: str
    store: Store
    same: tuple[tuple[str, ...], ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The runs' keys in the store, failed runs left out."""
        return tuple(run.config.key for run in self.runs if run.status != "failed")

    @property
    def failed(self) -> tuple[RunResult, ...]:
        """The runs that raised; their `message` says why."""
        return tuple(run for run in self.runs if run.status == "failed")


def plan(strategies: Sequence[str], seeds: Iterable[int], base: RunConfig) -> list[RunConfig]:
    """One config for every strategy and seed, otherwise like `base`.

    Seed by seed, so that a comparison that is interrupted has whole pairs.

    Raises:
        UsageError: an unknown strategy, one named twice, or no strategy or seed at all.
    """
    import gclip

    spellings = [str(gclip.parse(text)) for text in strategies]
    chosen = list(seeds)
    for what, values in (("strategy", spellings), ("seed", chosen)):
        if not values:
            raise UsageError(f"a comparison needs at least one {what}")
        twice = next((value for value in values if values.count(value) > 1), None)  # type: ignore[arg-type]
        if twice is not None:
            raise UsageError(f"the {what} {twice} is there twice; name each {what} once")
    return [base.replace(strategy=spelling, seed=seed) for seed in chosen for spelling in spellings]


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
    import gclip

    parsed = [gclip.parse(text) for text in strategies]
    spellings = [str(each) for each in parsed]
    if baseline is None:
        for usual in USUAL_BASELINES:
            named = [str(e) for e in parsed if isinstance(e, gclip.Strategy) and e.name == usual]
            if named:
                return usual if usual in named else named[0]
        shipped = (str(each) for each in parsed if _ships(each))
        return next(shipped, spellings[0])
    wanted = str(gclip.parse(baseline))
    if wanted not in spellings:
        unknown("baseline", wanted, spellings)
    return wanted


def baseline_reason(strategies: Sequence[str], baseline: str) -> str:
    """Why `choose_baseline` chose that, in words that follow the baseline's name."""
    import gclip

    parsed = [gclip.parse(text) for text in strategies]
    chosen = gclip.parse(baseline)
    if isinstance(chosen, gclip.Strategy) and chosen.name in USUAL_BASELINES:
        before = USUAL_BASELINES[: USUAL_BASELINES.index(chosen.name)]
        return f"because {' and '.join(before)} does not take part" if before else "as usual"
    absent = f"neither {' nor '.join(USUAL_BASELINES)} takes part"
    if _ships(chosen) and any(not _ships(each) for each in parsed):
        return f"the first named that ships with gclip: {absent}"
    if _ships(chosen):
        return f"the first named: {absent}"
    return "the first named: no strategy that ships with gclip takes part"


def _ships(strategy: Strategy | Chain) -> bool:
    """Whether gclip brings the strategy along; a plugin's does not."""
    parts = getattr(strategy, "strategies", (strategy,))
    return all(type(part).__module__.startswith("gclip.strategies.") for part in parts)


def compare(
    strategies: Sequence[str] | None = None,
    seeds: Iterable[int] | None = None,
    *,
    base: RunConfig | None = None,
    store: str | Path = "runs",
    workers: int | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    plugins: Iterable[str | Path] = (),
    baseline: str | None = None,
    threads: int = 1,
    fleet: Asked = "off",
    on_event: Listener = ignore,
) -> Comparison:
    """Train every strategy with every seed and compare them, pair by pair.

    The same call again only reads. Everything that can be known to be wrong beforehand is
    an error before the first run trains: strategies, data, device, a store that is read-only.

    Args:
        strategies: names or spellings such as ``"norm(max_norm=0.1)"``; all that are registered
            by default.
        seeds: by default as many, from 0 on, as so many comparisons need to show a difference
            (`default_seeds`): ten for up to 26 strategies.
        base: everything else about the runs; the default task if left out.
        baseline: what differences are to; `choose_baseline` says which by default.

    The other arguments are those of `run_all`.

    Raises:
        UsageError: with one sentence that says what is wrong and what would be right.
    """
    import gclip
    from gclip import results
    from gclip.results import statistics
    from gclip.results.same import same_runs
    from gclip.training import RunConfig, load_dataset, resolve_device

    plugins = tuple(plugins)
    for plugin in plugins:
        gclip.load_plugins(plugin)
    base = RunConfig() if base is None else base
    chosen = gclip.names() if strategies is None else tuple(strategies)
    reference = choose_baseline(chosen, baseline) if chosen else ""
    configs = plan(chosen, default_seeds(chosen) if seeds is None else seeds, base)
    resolve_device(device)
    dataset = load_dataset(base.task, data)
    configs = [config.with_data(dataset) for config in configs]
    kept = results.Store(store, create=True)
    runs = run_all(
        configs,
        kept,
        workers=workers,
        device=device,
        data=data,
        dataset=dataset,
        plugins=plugins,
        threads=threads,
        fleet=fleet,
        on_event=on_event,
    )
    keys = [run.config.key for run in runs]
    frame = results.load(kept, keys=keys)
    return Comparison(
        runs=tuple(runs),
        table=statistics.compare_table(frame, baseline=reference),
        baseline=reference,
        store=kept,
        same=same_runs(kept, keys),
    )
