"""The pool that trains in this process: for a single worker, and for a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gclip.execution.execution import Execution
from gclip.execution.job import Job
from gclip.execution.job_trainer import JobTrainer, describe_error
from gclip.execution.pool import TrainingPool, fleet_failure

if TYPE_CHECKING:
    from gclip.execution.speedup import Speedup
    from gclip.results import Store
    from gclip.training import Progress, RunConfig, RunResult


class InProcess(TrainingPool):
    """One run, or one fleet, after another in this process; see `TrainingPool`."""

    def __init__(self, store: Store, execution: Execution) -> None:
        super().__init__(store, execution)
        self._trainer = JobTrainer(store, execution, self._note)

    @property
    def free(self) -> int:
        """As of `Pool.free`."""
        return max(0, self._queue.size - len(self._queue))

    def wait(self) -> list[tuple[Job, RunResult]]:
        """Train the next run or fleet; see `Pool.wait`."""
        while True:
            jobs = self._queue.take()
            for job in jobs:
                self._tell("started", job)
            ended = [self._train_one(jobs[0])] if len(jobs) == 1 else self._train_fleet(jobs)
            if ended:
                return ended

    def measure(self, configs: Sequence[RunConfig], cap: int, steps: float) -> Speedup | None:
        """Time training steps here; see `TrainingPool.measure`."""
        from gclip.execution.fleet_measurement import measure

        dataset = self._trainer.dataset(configs[0].task)
        return measure(configs, dataset, self._execution, cap, steps)

    def _train_one(self, job: Job) -> tuple[Job, RunResult]:
        try:
            result = self._trainer.train_one(job, self._on_progress)
        except (Exception, SystemExit) as error:
            return self._fail(job, describe_error(error))
        return self._finish(job, result)

    def _train_fleet(self, jobs: Sequence[Job]) -> list[tuple[Job, RunResult]]:
        """Train a fleet; if it raises, those that had not ended wait again, each for itself."""
        ended: list[tuple[Job, RunResult]] = []

        def on_result(job: Job, result: RunResult) -> None:
            ended.append(self._finish(job, result))

        def on_failure(job: Job, message: str) -> None:
            ended.append(self._fail(job, message))

        try:
            self._trainer.train_fleet(jobs, self._on_progress, on_result, on_failure)
        except (Exception, SystemExit) as error:
            done = {job.index for job, _ in ended}
            rest = [job for job in jobs if job.index not in done]
            self._retry_alone(rest, fleet_failure(len(jobs), describe_error(error)))
        return ended

    def _on_progress(self, job: Job, progress: Progress, asks: bool) -> bool:
        self._tell("progress", job, progress=progress)
        return not asks or self.should_continue is None or self.should_continue(job, progress)
