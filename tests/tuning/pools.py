"""A pool that only pretends to train."""

from __future__ import annotations

from abc import abstractmethod

from gclip.execution import Job, Pool
from gclip.results import Store
from gclip.training import RunResult


class PretendedPool(Pool):
    """A few runs at a time, ended in the order of submission."""

    workers = 2

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.waiting: list[Job] = []

    @property
    def free(self) -> int:
        return self.workers - len(self.waiting)

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def wait(self) -> list[tuple[Job, RunResult]]:
        job = self.waiting.pop(0)
        return [(job, self.end(job))]

    @abstractmethod
    def end(self, job: Job) -> RunResult:
        """What comes of a run; it must be in the store."""
