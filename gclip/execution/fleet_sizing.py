"""How many runs should a fleet have? Measured here and now, on the work to be done.

A few training steps of the runs themselves, one after another and in fleets of a few sizes, take
turns, so that whatever else the machine does hits all of them; the fastest for each run and step
wins. Several workers measure at the same time, as they will train: the largest fleet that pays for
one alone is too large where all share a cache. One run after another stays unless a fleet is faster
by `WIN`. The finding is kept beside the store, so that the same command decides the same again.

The number of threads of each worker is not chosen here: it is pinned, as results depend on it. A
worker of one thread for each core is the faster way besides (``gclip bench fleet`` measures both).

Nothing is measured where it would not pay: fewer than two runs for each worker, fewer than
`LEAST_STEPS` training steps for each, or less than `LEAST_SECONDS` of work. Then there are no
fleets, and nothing is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gclip.execution.fleet_plan import evenly, plan, why_alone

if TYPE_CHECKING:
    import torch

    from gclip.training import Dataset, RunConfig

WIN = 1.05
"""A fleet must be so much faster than one run after another."""
LEAST_STEPS = 1000
LEAST_SECONDS = 10.0
"""Below so much work for each worker there is nothing to gain."""
BUDGET, SHARE = 2.5, 0.07
"""Seconds that a measurement may take, and the share of the work that it may take."""
SIZES = (4, 8, 16, 32, 64)
MOST = {"cpu": 32}
ALIKE = 1.03
"""Of sizes that are so close the smallest is taken: it loses less when a worker dies."""

MANY = 32
"""Examples of runs to come that are enough to measure with."""

FILE = "fleet.json"

Measure: TypeAlias = (
    "Callable[[Sequence[RunConfig], Dataset, Workload, int, float], Speedup | None]"
)
"""How `measure` is called, for those who have others do it."""
_SINGLES = 4
_ROUNDS = 6
_FEWEST_ROUNDS = 2
_EPOCH_SECONDS = 0.012
_SINGLES_SECONDS = 0.06
_MOST_STEPS = 12
_TOO_SLOW = BUDGET / 12  # seconds a step: the smallest fleet takes four of them, three times


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is to be trained, and with what.

    Attributes:
        configs: the runs, or runs like them.
        waiting: how many runs wait.
        workers: among whom they are divided.
        most: no fleet may be larger, for the sake of those who learn from runs that ended; None
            for no such bound.
        rounds: how many runs each of those that wait stands for, one after the other.
        device, threads, dataset, data: as `gclip.execution.run_all`.
    """

    configs: Sequence[RunConfig]
    waiting: int
    workers: int
    device: str
    threads: int = 1
    most: int | None = None
    rounds: int = 1
    dataset: Dataset | None = None
    data: str | Path | None = None

    @property
    def cap(self) -> int:
        """The largest fleet that makes sense."""
        most = min(MOST.get(self.device, SIZES[-1]), self.most or SIZES[-1])
        return min(most, math.ceil(self.waiting / self.workers))


@dataclass(frozen=True)
class Speedup:
    """What was measured.

    Attributes:
        times: how many times faster than one run after another is a fleet, by its size.
        most: the largest size that was measured, or thought of and left out.
    """

    times: Mapping[int, float] = field(default_factory=dict)
    most: int = 1

    def best(self, cap: int) -> int:
        """The size to take, at most `cap`; 1 for no fleets."""
        able = {size: times for size, times in self.times.items() if size <= cap}
        fastest = max(able.values(), default=1.0)
        if fastest < WIN:
            return 1
        return min(size for size, times in able.items() if ALIKE * times >= fastest)

    def to_json(self) -> dict[str, Any]:
        """As it is kept, and sent by a worker."""
        times = {str(size): round(times, 3) for size, times in sorted(self.times.items())}
        return {"times": times, "most": self.most}

    @classmethod
    def of(cls, found: Any) -> Speedup | None:
        """What `to_json` gave; None for anything else."""
        try:
            times = {int(size): float(each) for size, each in found["times"].items()}
            return cls(times, int(found["most"]))
        except (TypeError, KeyError, ValueError, AttributeError):
            return None

    @classmethod
    def together(cls, found: Sequence[Speedup]) -> Speedup:
        """What several workers found at the same time: the mean of each size they all measured."""
        sizes = set.intersection(*(set(each.times) for each in found))
        times = {size: statistics.fmean(each.times[size] for each in found) for size in sizes}
        return cls(dict(sorted(times.items())), min(each.most for each in found))


def choose(
    asked: int | Literal["auto"],
    work: Workload,
    folder: Path,
    say: Callable[[str], None],
    by: Measure | None = None,
    doing: Callable[[str], None] = lambda what: None,
) -> int:
    """How many runs a fleet has at most; 1 for no fleets.

    Args:
        asked: a number, or ``auto`` for the fastest.
        folder: where findings are kept.
        say: is told what was decided and why.
        by: measures in place of `measure`: `gclip.execution.pool.Training.measure`.
        doing: is told what takes its time, before it begins, and "" when it has ended.
    """
    able = [config for config in work.configs if not why_alone(config)]
    if asked == 1 or not work.configs:
        return 1
    if not able:
        if asked != "auto" or work.cap > 1:
            say(f"no fleets: {why_alone(work.configs[0])}")
        return 1
    if asked != "auto":
        return asked
    cap = work.cap
    if cap < 2:
        return 1
    from gclip.training import load_dataset
    from gclip.training.fleet.train import fleet_key

    [(shape, _)] = Counter(fleet_key(config) for config in able).most_common(1)
    alike = [config for config in able if fleet_key(config) == shape]
    dataset = work.dataset
    if dataset is None:
        dataset = load_dataset(alike[0].task, work.data, download=False)
    steps = work.waiting * work.rounds * _steps(alike[0], dataset) / work.workers
    if steps < LEAST_STEPS:
        return 1
    described = describe(work, alike)
    found = read(folder, described)
    when = "measured before"
    if found is None or found.most < cap or min(found.times, default=0) > cap:
        doing("measuring whether fleets pay")
        more = (by or measure)(alike, dataset, work, cap, steps)
        doing("")
        if more is None:
            return 1
        if found is not None:
            more = Speedup({**found.times, **more.times}, max(found.most, more.most))
        found, when = more, "measured"
        keep(folder, described, found)
    size = found.best(cap)
    if not found.times:
        say(f"no fleets: a training step is too slow to try them out, {when}")
    elif size == 1:
        say(f"no fleets: one run after another is as fast, {when}")
    else:
        say(f"fleets of {size}: {found.times[size]:.1f}x one after another, {when}")
    return size


def describe(work: Workload, configs: Sequence[RunConfig]) -> dict[str, Any]:
    """What a measurement depends on, and nothing that may differ when a command is repeated."""
    import torch

    from gclip.training.device import environment

    config = configs[0]
    machine = environment(torch.device(work.device), work.threads)
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
        "of a seed": _each(configs),
        "workers": work.workers,
        **{name: machine[name] for name in ("device", "threads", "torch", "gclip")},
    }


def read(folder: Path, described: Mapping[str, Any]) -> Speedup | None:
    """What was found before for such work; None where nothing was."""
    return Speedup.of(_all(folder).get(_key(described)))


def keep(folder: Path, described: Mapping[str, Any], found: Speedup) -> None:
    """Keep a finding; where that is not possible it is measured again."""
    entry = {"of": dict(described), **found.to_json()}
    text = json.dumps({**_all(folder), _key(described): entry}, indent=2) + "\n"
    temporary = folder / f".{FILE}.{uuid.uuid4().hex}"
    with contextlib.suppress(OSError):
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / FILE)


def measure(
    configs: Sequence[RunConfig], dataset: Dataset, work: Workload, cap: int, steps: float
) -> Speedup | None:
    """Time training steps of `configs`; None where the work is too little to pay for it.

    Args:
        steps: that each worker has to do.
    """
    import torch

    from gclip.training import graphs
    from gclip.training.device import reproducible

    device = torch.device(work.device)
    # Slow learning: as dear as any, and no run diverges and leaves.
    slow = [config.replace(lr=1e-4 * config.lr, fraction=1.0, split="test") for config in configs]
    # So many epochs that a GPU's pass is recorded here where it is in training.
    slow = [config.replace(epochs=max(_ROUNDS + 4, graphs.LEAST_STEPS)) for config in slow]
    with reproducible(device, work.threads):
        small = _some(slow[0], dataset, 1)
        _one(slow[0], small, device)  # the first of everything is slow
        began = time.perf_counter()
        first = _one(slow[0], small, device)
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
        data = _some(slow[0], dataset, count)
        singles = [_one(each, data, device) for each in _spread(slow, several)]
        fleets = {size: _together(slow, size, work.workers) for size in _sizes(cap)}
        found = _compare(singles, fleets, data, device, building, until)
        return Speedup(found, cap)


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

    def one() -> float:
        return statistics.fmean([single() for single in singles])

    one()
    a_round = (guess := one()) * len(singles)
    fleets: dict[int, Callable[[], float]] = {}
    for size, configs in runs.items():
        dearest = guess * len(configs)
        measuring = building * len(configs) + dearest + _FEWEST_ROUNDS * (a_round + dearest)
        if time.perf_counter() + measuring > until:
            break
        try:
            fleet = _fleet(configs, data, device)
            took = fleet()
        except (RuntimeError, MemoryError):  # too large for this device
            break
        fleets[size] = fleet
        a_round += took
    times: dict[int, list[float]] = {size: [] for size in fleets}
    for turn in range(_ROUNDS):
        if turn >= _FEWEST_ROUNDS and time.perf_counter() + a_round > until:
            break
        beside = one()
        for size in list(fleets)[:: -1 if turn % 2 else 1]:
            times[size].append(beside * len(runs[size]) / fleets[size]())
    return {size: statistics.median(each) for size, each in times.items()}


def _one(config: RunConfig, data: Dataset, device: torch.device) -> Callable[[], float]:
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


def _some(config: RunConfig, dataset: Dataset, steps: int) -> Dataset:
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


def _steps(config: RunConfig, dataset: Dataset) -> int:
    """Optimizer steps of a run, to a few."""
    learned = config.fraction * (0.9 if config.split == "validation" else 1.0)
    images = learned * len(dataset.train_labels)
    return math.ceil(images / (config.batch_size * config.accumulate)) * config.epochs


def _sizes(cap: int) -> list[int]:
    return [*(size for size in SIZES if 1.4 * size <= cap), cap]


def _each(configs: Sequence[RunConfig]) -> int:
    """How many runs of a seed there are, as far as that matters to fleets."""
    counts = Counter(config.seed for config in configs)
    return min(MANY, statistics.median_low(counts.values()))


def _together(configs: Sequence[RunConfig], size: int, workers: int) -> list[RunConfig]:
    """A fleet such as there will be: as many runs of each seed, with strategies from all over."""
    longest = max(plan(configs, size, workers), key=len)
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


def _all(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _key(described: Mapping[str, Any]) -> str:
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
