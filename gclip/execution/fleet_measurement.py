"""How much faster do fleets train than one run after another? Measured here and now.

A few training steps of the runs themselves, one after another and in fleets of a few sizes, take
turns, so that whatever else the machine does hits all of them; the fastest for each run and step
wins. Several workers measure at the same time, as they will train: the largest fleet that pays for
one alone is too large where all share a cache.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gclip.execution.execution import Execution
from gclip.execution.fleet_plan import evenly, group_into_fleets
from gclip.execution.speedup import Speedup

if TYPE_CHECKING:
    import torch

    from gclip.training import Dataset, ProblemData, RunConfig

LEAST_SECONDS = 10.0
"""Below so much work for each worker there is nothing to gain."""
BUDGET, SHARE = 2.5, 0.07
"""Seconds that a measurement may take, and the share of the work that it may take."""
SIZES = (4, 8, 16, 32, 64)

_SINGLES = 4
_ROUNDS = 6
_FEWEST_ROUNDS = 2
_EPOCH_SECONDS = 0.012
_SINGLES_SECONDS = 0.06
_MOST_STEPS = 12
_TOO_SLOW = BUDGET / 12  # seconds a step: the smallest fleet takes four of them, three times


def measure(
    configs: Sequence[RunConfig],
    dataset: Dataset | ProblemData,
    execution: Execution,
    cap: int,
    steps: float,
) -> Speedup | None:
    """Time training steps of `configs`; None where the work is too little to pay for it, or the
    task has no data set that fleets learn from.

    Args:
        configs: the runs, or runs like them.
        dataset: theirs.
        execution: with the device chosen.
        cap: the largest fleet that makes sense.
        steps: that each worker has to do.
    """
    import torch

    from gclip.training import Dataset, graphs
    from gclip.training.device import reproducible

    if not isinstance(dataset, Dataset):
        return None
    device = torch.device(execution.device)
    # Slow learning: as dear as any, and no run diverges and leaves.
    slow = [config.replace(lr=1e-4 * config.lr, fraction=1.0, split="test") for config in configs]
    # So many epochs that a GPU's pass is recorded here where it is in training.
    slow = [config.replace(epochs=max(_ROUNDS + 4, graphs.LEAST_STEPS)) for config in slow]
    with reproducible(device, execution.threads):
        small = _shortened(slow[0], dataset, 1)
        _single(slow[0], small, device)  # the first of everything is slow
        began = time.perf_counter()
        first = _single(slow[0], small, device)
        building = time.perf_counter() - began
        first()
        if (step := min(first(), first())) > _TOO_SLOW:
            return Speedup({}, cap)
        seconds = step * steps
        if seconds < LEAST_SECONDS:
            return None
        until = began + min(BUDGET, SHARE * seconds)
        count = min(_MOST_STEPS, max(1, round(_EPOCH_SECONDS / step)))
        several = min(_SINGLES, max(1, round(_SINGLES_SECONDS / (step * count))))
        data = _shortened(slow[0], dataset, count)
        singles = [_single(each, data, device) for each in _spread(slow, several)]
        fleets = {size: _example_fleet(slow, size, execution.processes) for size in _sizes(cap)}
        return Speedup(_compare(singles, fleets, data, device, building, until), cap)


def _compare(
    singles: Sequence[Callable[[], float]],
    runs: Mapping[int, Sequence[RunConfig]],
    data: Dataset,
    device: torch.device,
    building: float,
    until: float,
) -> dict[int, float]:
    """How many times faster the fleets are, as far as time allows; the smaller come first.

    Args:
        singles: train an epoch of `data` each, and give its seconds.
        runs: of the fleets.
        building: seconds that it takes to make a run.
        until: then there should be an end.
    """

    def time_singles() -> float:
        return statistics.fmean([single() for single in singles])

    time_singles()
    round_seconds = (guess := time_singles()) * len(singles)
    fleets: dict[int, Callable[[], float]] = {}
    for size, configs in runs.items():
        largest = guess * len(configs)
        measuring = building * len(configs) + largest + _FEWEST_ROUNDS * (round_seconds + largest)
        if time.perf_counter() + measuring > until:
            break
        try:
            fleet = _fleet(configs, data, device)
            seconds = fleet()
        except (RuntimeError, MemoryError):  # too large for this device
            break
        fleets[size] = fleet
        round_seconds += seconds
    times: dict[int, list[float]] = {size: [] for size in fleets}
    for turn in range(_ROUNDS):
        if turn >= _FEWEST_ROUNDS and time.perf_counter() + round_seconds > until:
            break
        beside = time_singles()
        for size in list(fleets)[:: -1 if turn % 2 else 1]:
            times[size].append(beside * len(runs[size]) / fleets[size]())
    return {size: statistics.median(each) for size, each in times.items()}


def _single(config: RunConfig, data: Dataset, device: torch.device) -> Callable[[], float]:
    from gclip.training.run import Run

    run = Run(config, data, device)
    return _timed(lambda: run.train_epoch(lambda: True))


def _fleet(
    configs: Sequence[RunConfig], data: Dataset, device: torch.device
) -> Callable[[], float]:
    from gclip.training.fleet.run import FleetRun

    run = FleetRun(configs, data, device)
    return _timed(run.train_epoch)


def _timed(epoch: Callable[[], object]) -> Callable[[], float]:
    """The seconds of an epoch, which ends with a look at the losses: on a GPU, too, all is done."""

    def time_it() -> float:
        began = time.perf_counter()
        epoch()
        return time.perf_counter() - began

    return time_it


def _shortened(config: RunConfig, dataset: Dataset, steps: int) -> Dataset:
    """As many images as fill a few whole steps, where there are as many."""
    group = config.batch_size * config.accumulate
    count = len(dataset.train_labels)
    count = min(group * steps, max(count // group * group, min(count, group)))
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:count],
        train_labels=dataset.train_labels[:count],
        test_images=dataset.test_images[:1],
        test_labels=dataset.test_labels[:1],
    )


def _sizes(cap: int) -> list[int]:
    return [*(size for size in SIZES if 1.4 * size <= cap), cap]


def _example_fleet(configs: Sequence[RunConfig], size: int, workers: int) -> list[RunConfig]:
    """A fleet such as there will be: as many runs of each seed, with strategies from all over."""
    longest = max(group_into_fleets(configs, size, workers), key=len)
    counts = Counter(configs[place].seed for place in longest)
    return [
        config
        for seed, count in counts.items()
        for config in _spread([config for config in configs if config.seed == seed], count)
    ]


def _spread(configs: Sequence[RunConfig], count: int) -> list[RunConfig]:
    """So many of the configs, from all over the list."""
    parts = evenly(range(len(configs)), min(count, len(configs)))
    return [configs[part[0]] for part in parts]
