"""Which runs train together? Those of one shape, and of these first those of one seed.

Runs of one seed see the same batches, so that a fleet of them need not copy an image; a fleet of
several seeds takes about a third longer for each run. A fleet is as large as it may be, but for the
end of a list, which is split so that no worker is idle.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from gclip.errors import UsageError

if TYPE_CHECKING:
    from gclip.execution.pool import Job
    from gclip.training import RunConfig

Asked = int | Literal["auto", "off"]
"""How many runs a fleet has at most; ``auto``: as many as are measured to be the fastest."""


def read_fleet(value: int | str) -> int | Literal["auto"]:
    """What ``--fleet`` says: ``auto``, or a number, 1 for ``off``.

    Raises:
        UsageError: it is something else.
    """
    if value == "auto":
        return "auto"
    if value == "off":
        return 1
    try:
        count = int(value)
    except ValueError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise UsageError(f"fleet must be auto, off or a whole number ≥ 1, but got {value!r}")
    return count


def why_alone(config: RunConfig) -> str:
    """Why a run cannot be in a fleet, in a sentence; empty where it can be."""
    return _why_alone(config.strategy, config.model)


@functools.lru_cache(maxsize=4096)
def _why_alone(strategy: str, model: str) -> str:
    from gclip.training import RunConfig
    from gclip.training.fleet.train import cannot

    # With the strategy's name for its spelling: of many settings one sentence says enough.
    said = cannot(RunConfig(strategy=strategy, model=model))
    return said.replace(strategy, strategy.partition("(")[0])


def plan(configs: Sequence[RunConfig], size: int, workers: int = 1) -> list[list[int]]:
    """The fleets, each a list of places in `configs`: every place once, in order of their first.

    Args:
        size: the largest fleet; 1 for none at all.
        workers: among whom the fleets are spread evenly, as far as there are enough runs.
    """
    if size == 1:
        return [[place] for place in range(len(configs))]
    from gclip.training.fleet.train import fleet_key

    alone = [[place] for place, config in enumerate(configs) if why_alone(config)]
    shapes: dict[object, list[int]] = {}
    for place, config in enumerate(configs):
        if not why_alone(config):
            shapes.setdefault(fleet_key(config), []).append(place)
    found = [fleet for same in shapes.values() for fleet in _split(configs, same, size, workers)]
    return sorted([*alone, *found])


def _split(
    configs: Sequence[RunConfig], places: Sequence[int], size: int, workers: int
) -> list[list[int]]:
    """Fleets of runs of one shape."""
    rounds = -(-len(places) // (size * workers))
    count = min(rounds * workers, len(places))
    most = -(-len(places) // count)
    seeds: dict[int, list[int]] = {}
    for place in places:
        seeds.setdefault(configs[place].seed, []).append(place)
    if len(seeds) == 1:
        return evenly(places, count)
    fleets: list[list[int]] = []
    together: list[int] = []
    for group in seeds.values():
        if 2 * len(group) >= most:
            fleets += evenly(group, -(-len(group) // most))
            continue
        if len(together) + len(group) > most:
            fleets.append(together)
            together = []
        together += group
    return [*fleets, together] if together else fleets


def evenly(places: Sequence[int], count: int) -> list[list[int]]:
    """`places` in `count` parts whose sizes differ by at most one."""
    least, more = divmod(len(places), count)
    ends = [part * least + min(part, more) for part in range(count + 1)]
    return [list(places[a:b]) for a, b in itertools.pairwise(ends)]


class Waiting:
    """The runs of a pool that wait for a worker, handed out fleet by fleet.

    Args:
        size: the largest fleet.
        workers: of the pool.
        say: is told, once for each reason, why runs are not in a fleet.

    Attributes:
        complete: no more runs will come, so that the last ones are for all workers.
    """

    def __init__(self, size: int, workers: int, say: Callable[[Job, str], None]) -> None:
        self.size, self._workers, self._say = size, workers, say
        self.complete = False
        self._new: list[Job] = []
        self._fleets: deque[list[Job]] = deque()
        self._said: set[str] = set()
        self._taken = 0

    def __len__(self) -> int:
        return len(self._new) + sum(map(len, self._fleets))

    def add(self, job: Job) -> None:
        """Put a run at the end of the line."""
        self._new.append(job)

    def again(self, jobs: Iterable[Job]) -> None:
        """Put runs at its head, each by itself."""
        self._fleets.extendleft([[job] for job in reversed(list(jobs))])

    def take(self, idle: int = 1) -> list[Job]:
        """The next fleet, for one of `idle` workers; there must be one."""
        if self._new:
            self._arrange(idle)
        # Of the last fleets there is one for each worker, in the round that has begun.
        rest = self._workers - self._taken % self._workers if self.complete else 1
        self._taken += 1
        ready = max(idle, rest)
        while len(self._fleets) < ready:
            largest = max(self._fleets, key=len)
            if len(largest) < 4:
                break
            place, half = self._fleets.index(largest), -(-len(largest) // 2)
            self._fleets[place] = largest[:half]
            self._fleets.insert(place + 1, largest[half:])
        return self._fleets.popleft()

    def _arrange(self, idle: int) -> None:
        configs = [job.config for job in self._new]
        for places in plan(configs, self.size, self._workers if self.complete else idle):
            jobs = [self._new[place] for place in places]
            self._fleets.append(jobs)
            reason = why_alone(jobs[0].config) if self.size > 1 and len(jobs) == 1 else ""
            if reason and reason not in self._said:
                self._said.add(reason)
                self._say(jobs[0], f"not in a fleet: {reason}")
        self._new = []
