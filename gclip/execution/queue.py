"""The runs that wait for a worker, handed out fleet by fleet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from gclip.execution.fleet_plan import group_into_fleets, why_alone
from gclip.execution.job import Job


class JobQueue:
    """The runs of a pool that wait for a worker, handed out fleet by fleet.

    Args:
        size: the largest fleet.
        workers: of the pool.
        note: is told, once for each reason, why runs are not in a fleet.
        resumable: of the runs with these keys, those that have to be together to go on from where
            they were stopped; see `gclip.results.checkpoints.Checkpoints.resumable`.

    Attributes:
        complete: no more runs will come, so that the last ones are for all workers.
    """

    def __init__(
        self,
        size: int,
        workers: int,
        note: Callable[[Job, str], None],
        resumable: Callable[[Sequence[str]], list[list[str]]] = lambda _: [],
    ) -> None:
        self.size, self._workers, self._note = size, workers, note
        self._resumable = resumable
        self.complete = False
        self._new: list[Job] = []
        self._kept: deque[list[Job]] = deque()  # as they were when they were stopped
        self._fleets: deque[list[Job]] = deque()
        self._reasons: set[str] = set()
        self._taken = 0

    def __len__(self) -> int:
        return len(self._new) + sum(map(len, (*self._kept, *self._fleets)))

    def add(self, job: Job) -> None:
        """Put a run at the end of the line."""
        self._new.append(job)

    def again(self, jobs: Iterable[Job]) -> None:
        """Put runs at its head, each by itself."""
        self._fleets.extendleft([[job] for job in reversed(list(jobs))])

    def take(self, idle: int = 1) -> list[Job]:
        """The next fleet, for one of `idle` workers; there must be one."""
        if self._new:
            self._keep_together()
            self._arrange(idle)
        # Of the last fleets there is one for each worker, in the round that has begun.
        rest = self._workers - self._taken % self._workers if self.complete else 1
        self._taken += 1
        if self._kept:
            return self._kept.popleft()
        ready = max(idle, rest)
        while len(self._fleets) < ready:
            largest = max(self._fleets, key=len)
            if len(largest) < 4:
                break
            place, half = self._fleets.index(largest), -(-len(largest) // 2)
            self._fleets[place] = largest[:half]
            self._fleets.insert(place + 1, largest[half:])
        return self._fleets.popleft()

    def _keep_together(self) -> None:
        """Fleets that were stopped go on as they were; runs that were stopped alone, alone."""
        jobs = {job.config.key: job for job in self._new}
        for keys in self._resumable(list(jobs)):
            self._kept.append([jobs.pop(key) for key in keys])
        self._new = [job for job in self._new if job.config.key in jobs]

    def _arrange(self, idle: int) -> None:
        configs = [job.config for job in self._new]
        for places in group_into_fleets(
            configs, self.size, self._workers if self.complete else idle
        ):
            jobs = [self._new[place] for place in places]
            self._fleets.append(jobs)
            reason = why_alone(jobs[0].config) if self.size > 1 and len(jobs) == 1 else ""
            if reason and reason not in self._reasons:
                self._reasons.add(reason)
                self._note(jobs[0], f"not in a fleet: {reason}")
        self._new = []
