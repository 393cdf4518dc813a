"""How many runs should a fleet have? As many as are measured to be the fastest for each run.

One run after another stays unless a fleet is faster by `speedup.WIN`. What was measured is kept
beside the store, so that the same command decides the same again.

The number of threads of each worker is not chosen here: it is pinned, as results depend on it. A
worker of one thread for each core is the faster way besides (``gclip bench fleet`` measures both).

Nothing is measured where it would not pay: fewer than two runs for each worker, fewer than
`LEAST_STEPS` training steps for each, or less than `fleet_measurement.LEAST_SECONDS` of work. Then
there are no fleets, and nothing is said.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gclip.execution import speedup
from gclip.execution.events import Event, EventKind
from gclip.execution.execution import Execution
from gclip.execution.fleet_measurement import SIZES
from gclip.execution.fleet_plan import why_alone
from gclip.execution.job import Job
from gclip.execution.speedup import Speedup

if TYPE_CHECKING:
    from gclip.training import Dataset, RunConfig

LEAST_STEPS = 1000
"""Below so many steps for each worker there is nothing to gain."""
LARGEST = {"cpu": 32}
"""By device; `SIZES` bounds the others."""

MANY = 32
"""Examples of runs to come that are enough to measure with."""

Measure: TypeAlias = "Callable[[Sequence[RunConfig], int, float], Speedup | None]"
"""Who measures: `gclip.execution.pool.TrainingPool.measure`."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is to be trained, and with what.

    Attributes:
        configs: the runs, or runs like them.
        waiting: how many runs wait.
        execution: with the device chosen; the runs are divided among its workers.
        largest: no fleet may be larger, for the sake of those who learn from runs that ended; None
            for no such bound.
        rounds: how many runs each of those that wait stands for, one after the other.
    """

    configs: Sequence[RunConfig]
    waiting: int
    execution: Execution
    largest: int | None = None
    rounds: int = 1

    @property
    def cap(self) -> int:
        """The largest fleet that makes sense."""
        device = self.execution.device
        largest = min(LARGEST.get(device, SIZES[-1]), self.largest or SIZES[-1])
        return min(largest, math.ceil(self.waiting / self.execution.processes))


def choose(work: Workload, folder: Path, first: Job, measure: Measure) -> int:
    """How many runs a fleet has at most; 1 for no fleets.

    The execution's listener is told what was decided and why, and what takes its time.

    Args:
        work: what is to be trained; its execution says how many are asked for, or ``auto``.
        folder: where measurements are kept.
        first: whom the listener's events are about.
        measure: times fleets of some runs, up to a size, for work of so many steps.
    """
    execution = work.execution

    def tell(kind: EventKind, message: str) -> None:
        execution.listener(
            Event(kind=kind, index=first.index, config=first.config, message=message)
        )

    if execution.fleet == 1 or not work.configs:
        return 1
    able = [config for config in work.configs if not why_alone(config)]
    if not able:
        if execution.fleet != "auto" or work.cap > 1:
            tell("note", f"no fleets: {why_alone(work.configs[0])}")
        return 1
    if isinstance(execution.fleet, int):
        return execution.fleet
    cap = work.cap
    if cap < 2:
        return 1
    from gclip.training import Dataset, load_data
    from gclip.training.fleet.train import fleet_key

    [(shape, _)] = Counter(fleet_key(config) for config in able).most_common(1)
    alike = [config for config in able if fleet_key(config) == shape]
    dataset = execution.dataset
    if dataset is None:
        dataset = load_data(alike[0].task, execution.data, download=False)
    if not isinstance(dataset, Dataset):
        return 1
    steps = work.waiting * work.rounds * _steps(alike[0], dataset) / execution.processes
    if steps < LEAST_STEPS:
        return 1
    described = describe(work, alike)
    known = speedup.read(folder, described)
    when = "measured before"
    if known is None or known.most < cap or min(known.times, default=0) > cap:
        tell("doing", "measuring whether fleets pay")
        measured = measure(alike, cap, steps)
        tell("doing", "")
        if measured is None:
            return 1
        if known is not None:
            times = {**known.times, **measured.times}
            measured = Speedup(times, max(known.most, measured.most))
        known, when = measured, "measured"
        speedup.write(folder, described, known)
    size = known.best(cap)
    if not known.times:
        tell("note", f"no fleets: a training step is too slow to try them out, {when}")
    elif size == 1:
        tell("note", f"no fleets: one run after another is as fast, {when}")
    else:
        times_faster = known.times[size]
        tell("note", f"fleets of {size}: {times_faster:.1f}x one after another, {when}")
    return size


def describe(work: Workload, configs: Sequence[RunConfig]) -> dict[str, Any]:
    """What a measurement depends on, and nothing that may differ when a command is repeated."""
    import torch

    from gclip.training.device import environment

    config = configs[0]
    machine = environment(torch.device(work.execution.device), work.execution.threads)
    names = {config.strategy.partition("(")[0] for config in configs}
    shape = {
        name: getattr(config, name)
        for name in ("task", "model", "optimizer", "batch_size", "accumulate", "precision")
    }
    return {
        **shape,
        "augment": config.augment,
        "schedule": config.schedule,
        "strategies": "one" if len(names) == 1 else "several",
        "of a seed": _runs_of_a_seed(configs),
        "workers": work.execution.processes,
        **{name: machine[name] for name in ("device", "threads", "torch", "gclip")},
    }


def _steps(config: RunConfig, dataset: Dataset) -> int:
    """Optimizer steps of a run, to a few."""
    learned = config.fraction * (0.9 if config.split == "validation" else 1.0)
    images = learned * len(dataset.train_labels)
    return math.ceil(images / (config.batch_size * config.accumulate)) * config.epochs


def _runs_of_a_seed(configs: Sequence[RunConfig]) -> int:
    """How many runs of a seed there are, as far as that matters to fleets."""
    counts = Counter(config.seed for config in configs)
    return min(MANY, statistics.median_low(counts.values()))
