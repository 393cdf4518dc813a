"""How long will the runs that are left take? Told from those that were seen to train.

Wall-clock time is divided among the runs under way at each moment, so that runs in several workers,
in fleets and one after another are measured alike. What happens before a run's first progress (the
imports of a new process, the first pass through every kernel) is not taken for training.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

WATCHED = 2.0
"""Seconds of training to see before anything is said."""
SHARE = 0.1
"""Of one run, that must have been seen by then ..."""
LONG = 20.0
"""... or so many seconds, where runs are long."""
_UNSURE = 2.0


@dataclass(frozen=True)
class Estimate:
    """Seconds left, at least and at most; both are the same where that is known well."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The geometric mean of the two."""
        return math.sqrt(self.low * self.high)


@dataclass
class _Run:
    kind: tuple[Hashable, ...]
    began: float
    charged: float  # what had been divided among runs when it began
    first: bool  # nothing had ended when it began: what comes before its first progress is unlike
    share: float = 0.0
    seen: tuple[float, float, float] | None = None  # share, clock and charge at its first progress


class TimeLeft:
    """Told when runs begin, advance and end; asked for the time left.

    A run's `kind` is a tuple, the most telling first (``("norm(max_norm=1)", "norm")``): what
    is not known of runs just like it is taken from the next, and at last from all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._now = clock()
        self._charged = 0.0
        self._runs: dict[int, _Run] = {}
        self._waiting: Counter[tuple[Hashable, ...]] = Counter()
        self._spent: dict[Hashable, list[float]] = defaultdict(list)
        self._early: dict[Hashable, list[float]] = defaultdict(list)
        self._lasted: dict[Hashable, list[float]] = defaultdict(list)
        self._watched_since: float | None = None
        self._ended = False
        self._seen_share = 0.0

    def waits(self, kind: tuple[Hashable, ...]) -> None:
        """A run of this kind is to be made."""
        self._waiting[kind] += 1

    def starts(self, index: int, kind: tuple[Hashable, ...]) -> None:
        """A run begins."""
        self._advance()
        if self._waiting[kind] > 0:
            self._waiting[kind] -= 1
        self._runs[index] = _Run(kind, self._now, self._charged, not self._ended)

    def advances(self, index: int, share: float) -> None:
        """So much of a run is done, 0 to 1."""
        run = self._runs.get(index)
        if run is None:
            return
        self._advance()
        if run.seen is None:
            run.seen = (share, self._now, self._charged)
            if self._watched_since is None:
                self._watched_since = self._now
        else:
            self._seen_share += max(0.0, share - run.share)
        run.share = share

    def ends(self, index: int, *, again: bool = False) -> None:
        """A run has ended; or is to begin `again`, because its worker died."""
        self._advance()
        run = self._runs.pop(index, None)
        if run is None:
            return
        if again:
            self._waiting[run.kind] += 1
            return
        cost = self._charged - run.charged
        costs = self._spent
        if run.first:
            costs = self._early
            if run.seen is not None and run.seen[0] < 0.5:  # only what was training
                share, _, charged = run.seen
                cost = (self._charged - charged) / (1 - share)
        for key in (*run.kind, None):
            costs[key].append(cost)
        if not run.first:
            for key in run.kind:
                self._lasted[key].append(self._now - run.began)
        self._ended = True
        self._seen_share += 1
        if self._watched_since is None:
            self._watched_since = run.began

    def left(self, unknown: int = 0) -> Estimate | None:
        """Seconds until all have ended; None while nothing honest can be said.

        Args:
            unknown: runs that nobody has told of yet.
        """
        self._advance()
        if not self._sure():
            return None
        measured = self._measured()
        if None not in measured:
            return None
        seconds, longest = 0.0, 0.0
        for run in self._runs.values():
            own = self._own(run)
            cost = _of(run.kind, measured)[0] if own is None else own
            seconds += cost * (1 - run.share)
            if run.seen is not None and run.share > run.seen[0]:
                pace = (self._now - run.seen[1]) / (run.share - run.seen[0])
                longest = max(longest, pace * (1 - run.share))
        strange = unknown
        for kind, count in (+self._waiting).items():
            cost, known = _of(kind, measured)
            seconds += count * cost
            strange += 0 if known else count
            # However many workers there are, none ends before the run that it begins now.
            lasted = next((self._lasted[key] for key in kind if key in self._lasted), None)
            longest = max(longest, statistics.median(lasted) if lasted else 0.0)
        waiting = self._waiting.total() + unknown
        seconds += unknown * measured[None]
        seconds = max(seconds, longest)
        # Methods differ in what they cost: where most of those to come were never seen, say so.
        if self._waiting and 2 * strange > waiting + len(self._runs) and waiting > unknown:
            return Estimate(seconds / _UNSURE, seconds * _UNSURE)
        return Estimate(seconds, seconds)

    def _advance(self) -> None:
        now = self._clock()
        if self._runs:
            self._charged += (now - self._now) / len(self._runs)
        self._now = now

    def _sure(self) -> bool:
        if self._watched_since is None:
            return False
        watched = self._now - self._watched_since
        enough = self._seen_share >= SHARE or (watched >= LONG and self._seen_share > 0)
        return watched >= WATCHED and enough

    def _measured(self) -> dict[Hashable, float]:
        """What a whole run costs, by each part of its kind; by None for any run."""
        under_way: dict[Hashable, list[float]] = defaultdict(list)
        for run in self._runs.values():
            own = self._own(run)
            if own is not None:
                for key in (*run.kind, None):
                    under_way[key].append(own)
        costs_by_kind: dict[Hashable, float] = {}
        for costs in (self._spent, under_way, self._early):  # the best source first
            for key, values in costs.items():
                if key not in costs_by_kind and values:
                    costs_by_kind[key] = statistics.fmean(values)
        return costs_by_kind

    def _own(self, run: _Run) -> float | None:
        """What a run under way will have cost, by its own pace."""
        if run.seen is None:
            return None
        share, _, charged = run.seen
        if run.share > share:
            return (self._charged - charged) / (run.share - share)
        if share >= SHARE:  # a fleet tells of itself at epochs' ends
            return (charged - run.charged) / share
        return None


def _of(kind: tuple[Hashable, ...], measured: dict[Hashable, float]) -> tuple[float, bool]:
    """The cost of a run of this kind, and whether it is that of its like."""
    for key in kind:
        if key in measured:
            return measured[key], True
    return measured[None], False
