"""What a pool is: it takes runs, trains them, and gives their results back.

Both kinds of pool (`in_process`, `processes`) take a run with `submit` and give results back from
`wait`; who decides which run comes next (a fixed list, an Optuna study) does not see the
difference. Runs may be trained several at a time, as one fleet. If the fleet raises, the runs that
had not ended begin again one by one, so that one that kills what it touches takes no other with it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gclip.errors import UsageError
from gclip.execution.events import Event, EventKind, Listener, ignore
from gclip.execution.execution import Execution
from gclip.execution.job import Job
from gclip.execution.queue import JobQueue

if TYPE_CHECKING:
    from gclip.execution.speedup import Speedup
    from gclip.results import Store
    from gclip.training import Progress, RunConfig, RunResult

ShouldContinue = Callable[[Job, "Progress"], bool]
"""Asked at the end of every epoch but the last whether a run should go on."""


class Pool(ABC):
    """Trains runs and stores their results; use it as a context manager.

    Attributes:
        should_continue: decides at the end of an epoch whether a run goes on, which waits for the
            answer; a run that does not has the status ``pruned``. None: all go on.
        attempts: so many workers may a run lose; then it has failed.
    """

    def __init__(self, store: Store, listener: Listener = ignore) -> None:
        self.store = store
        self.should_continue: ShouldContinue | None = None
        self.attempts = 2
        self._listener = listener

    @property
    @abstractmethod
    def free(self) -> int:
        """How many more runs could begin at once; a worker that trains a fleet has no room until
        the last of its runs has ended."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a run. It begins now or when a worker is free; in fleets, on `wait`."""

    def submit_all(self, jobs: Sequence[Job]) -> None:
        """Take all the runs that there will be: known to be the last, they are spread evenly."""
        for job in jobs:
            self.submit(job)

    def expect(self, keys: Sequence[str]) -> None:  # noqa: B027 - nothing to do without fleets
        """The runs with these keys come first, and may have been under way when a command before
        this one was stopped."""

    @abstractmethod
    def wait(self) -> list[tuple[Job, RunResult]]:
        """Block until at least one submitted run has ended; the results are in the store."""

    def close(self) -> None:  # noqa: B027 - a pool without processes has nothing to stop
        """Stop at once. Runs in progress are given up; those that ended are stored."""

    def stop(self) -> None:
        """Stop at a good place: runs in progress are kept, as far as they can be."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.stop()
        else:
            self.close()

    def _tell(self, kind: EventKind, job: Job, **more: Any) -> None:
        self._listener(Event(kind=kind, index=job.index, config=job.config, **more))

    def _finish(self, job: Job, result: RunResult) -> tuple[Job, RunResult]:
        failed = result.status == "failed"
        self._tell("failed" if failed else "done", job, result=result, message=result.message)
        return job, result

    def _note(self, job: Job, message: str) -> None:
        self._tell("note", job, message=message)

    def _retry(self, jobs: Sequence[Job], message: str) -> None:
        """Tell of each that it begins again, and of the first of them why."""
        for job in jobs:
            self._tell("retried", job, message=message)
            message = ""

    def _fail(self, job: Job, message: str) -> tuple[Job, RunResult]:
        from gclip.training import RunResult

        result = RunResult.failed(job.config, message)
        with contextlib.suppress(UsageError):  # a full disk is perhaps why it failed
            self.store.save(result)
        return self._finish(job, result)


class TrainingPool(Pool):
    """A pool that trains, in fleets where it is told so.

    Args:
        store: where results go.
        execution: with the device chosen. Fleets have at most the size that it says; while that is
            ``auto`` there are none (`resize`).
    """

    def __init__(self, store: Store, execution: Execution) -> None:
        super().__init__(store, execution.listener)
        self._execution = execution
        size = execution.fleet if isinstance(execution.fleet, int) else 1
        self._queue = JobQueue(size, execution.processes, self._note, self._resumable)

    def submit(self, job: Job) -> None:
        """Take a run; see `Pool.submit`."""
        self._queue.add(job)

    def submit_all(self, jobs: Sequence[Job]) -> None:
        """Take all the runs that there will be; see `Pool.submit_all`."""
        self._queue.complete = True
        super().submit_all(jobs)

    @abstractmethod
    def measure(self, configs: Sequence[RunConfig], cap: int, steps: float) -> Speedup | None:
        """`fleet_measurement.measure`, done by those who will train, all at the same time."""

    def resize(self, fleet: int) -> None:
        """From now on fleets have at most so many runs; 1: there are none."""
        self._queue.size = fleet

    def expect(self, keys: Sequence[str]) -> None:
        """See `Pool.expect`: fleets are gathered to be as large as they were."""
        largest = max(map(len, self._resumable(keys)), default=1)
        self._queue.size = max(self._queue.size, largest)

    def _resumable(self, keys: Sequence[str]) -> list[list[str]]:
        """Runs that have to train together to go on from where they were stopped."""
        from gclip.results.checkpoints import Checkpoints

        fleet = self._execution.fleet
        if self._execution.checkpoint_every is None or fleet == 1:
            return []
        found = Checkpoints(self.store).resumable(keys)
        return [each for each in found if fleet == "auto" or len(each) <= int(fleet)]

    def _retry_alone(self, jobs: Sequence[Job], message: str) -> None:
        """Runs of which a fleet or a worker was lost begin again, each by itself."""
        self._retry(jobs, message)
        self._queue.again(jobs)


def fleet_failure(count: int, message: str) -> str:
    """What is said of a fleet of `count` runs that raised."""
    return f"its fleet of {count} failed ({message}); its runs start again one by one"
