"""The pool of worker processes, each with its own thread count.

A worker that dies (``kill -9``, out of memory) costs its run one retry; a run that loses two
workers has failed. Each result is in the store the moment its run ends.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gclip.execution.execution import Execution
from gclip.execution.job import Job
from gclip.execution.pool import TrainingPool, fleet_failure
from gclip.execution.worker import first_line
from gclip.execution.worker_process import Message, WorkerProcess, describe_exit

if TYPE_CHECKING:
    from gclip.execution.speedup import Speedup
    from gclip.results import Store
    from gclip.training import RunConfig, RunResult


PATIENCE = 10.0
"""Seconds that workers have to finish a step and save its run; schedulers give a process 30."""


class WorkersFailed(RuntimeError):
    """Worker processes do not start; the message holds the last line they wrote."""


class Processes(TrainingPool):
    """Worker processes, each a fresh Python, started when needed; see `TrainingPool`."""

    def __init__(self, store: Store, execution: Execution) -> None:
        super().__init__(store, execution)
        self._count = execution.processes
        self._workers: list[WorkerProcess] = []
        self._lost_workers: Counter[str] = Counter()  # by the key of the run that lost them
        self._inbox: queue.SimpleQueue[tuple[WorkerProcess, Message | None]] = queue.SimpleQueue()

    @property
    def free(self) -> int:
        """As of `Pool.free`."""
        return max(0, self._idle * self._queue.size - len(self._queue))

    @property
    def _idle(self) -> int:
        """Workers without a run, those that were not started yet among them."""
        return self._count - sum(bool(worker.jobs) for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Take a run; see `Pool.submit`."""
        super().submit(job)
        if self._queue.size == 1:
            self._dispatch()

    def wait(self) -> list[tuple[Job, RunResult]]:
        """Block until a run has ended; see `Pool.wait`.

        Raises:
            RuntimeError: no run was submitted.
            WorkersFailed: the workers do not start.
        """
        if not self._queue and not any(worker.jobs for worker in self._workers):
            raise RuntimeError("wait() with no run submitted would never return")
        while True:
            self._dispatch()
            worker, message = self._receive()
            ended = self._handle_exit(worker) if message is None else self._handle(worker, message)
            if ended:
                if self._queue.size == 1:
                    self._dispatch()
                return ended

    def measure(self, configs: Sequence[RunConfig], cap: int, steps: float) -> Speedup | None:
        """Time training steps in all the workers at once; see `TrainingPool.measure`."""
        from gclip.execution.speedup import Speedup

        while len(self._workers) < self._count:
            self._start()
        while not all(worker.ready for worker in self._workers):
            worker, message = self._receive()
            if message is None:
                self._handle_exit(worker)
            else:
                self._handle(worker, message)
        order = {"configs": [config.to_json() for config in configs], "cap": cap, "steps": steps}
        asked = list(self._workers)
        for worker in asked:
            worker.send({"measure": order})
        answers: list[Speedup | None] = []
        while len(answers) < len(asked):
            worker, message = self._receive()
            if message is None:
                self._handle_exit(worker)
            answers.append(None if message is None else Speedup.of(message["speedup"]))
        speedups = [each for each in answers if each is not None]
        # One that could not, or need not, measure is as good as none: then there are no fleets.
        whole = bool(speedups) and len(speedups) == len(answers)
        return Speedup.mean(speedups) if whole else None

    def pids(self) -> tuple[int, ...]:
        """The process ids of the living workers."""
        return tuple(worker.process.pid for worker in self._workers)

    def stop(self) -> None:
        """Let workers finish their step and save their runs, then end them; see `Pool.stop`."""
        try:
            busy = [worker for worker in self._workers if worker.jobs and worker.ready]
            for worker in busy:
                worker.send({"stop": True})
            until = time.monotonic() + PATIENCE
            for worker in busy:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(0.0, until - time.monotonic()))
        finally:
            self.close()

    def close(self) -> None:
        """End all workers at once; see `Pool.close`."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _receive(self) -> tuple[WorkerProcess, Message | None]:
        """The next message of a worker; None: it has ended."""
        while True:
            # In slices, because an endless wait cannot be interrupted by Ctrl-C everywhere.
            with contextlib.suppress(queue.Empty):
                worker, message = self._inbox.get(timeout=0.5)
                if worker in self._workers:
                    return worker, message

    def _dispatch(self) -> None:
        while self._queue and self._idle > 0:
            idle = next((worker for worker in self._workers if not worker.jobs), None)
            if idle is None:
                idle = self._start()
            idle.give(self._queue.take(self._idle), ask=self.should_continue is not None)
            if idle.ready:
                self._tell_started(idle)

    def _tell_started(self, worker: WorkerProcess) -> None:
        for job in worker.jobs.values():
            self._tell("started", job)

    def _handle(self, worker: WorkerProcess, message: Message) -> list[tuple[Job, RunResult]]:
        """React to a message; the runs that have ended with it."""
        from gclip.training import Progress

        kind = message["kind"]
        if kind == "ready":
            worker.ready = True
            self._tell_started(worker)
            return []
        if kind == "broken":
            if message["index"] in worker.fleet:  # else all its runs had ended before
                rest = list(worker.jobs.values())
                worker.jobs = {}
                self._retry_alone(rest, fleet_failure(len(worker.fleet), message["message"]))
            return []
        job = worker.jobs.get(message["index"])
        if job is None:
            return []
        if kind == "note":
            self._note(job, message["message"])
            return []
        if kind == "progress":
            progress = Progress.from_dict(message["progress"])
            self._tell("progress", job, progress=progress)
            if message["asks"]:
                go = self.should_continue is None or self.should_continue(job, progress)
                worker.send({"go": go})
            return []
        del worker.jobs[job.index]
        if kind == "failed":
            return [self._fail(job, message["message"])]
        return [self._finish(job, self.store.load(job.config.key))]

    def _handle_exit(self, worker: WorkerProcess) -> list[tuple[Job, RunResult]]:
        """A worker is gone: its runs begin again elsewhere, one by one, or have failed."""
        self._workers.remove(worker)
        code = worker.process.wait()
        last_line = worker.last_error_line()
        worker.end()
        if not worker.ready and code > 0:
            reason = last_line or f"exit code {code}"
            raise WorkersFailed(f"a worker process does not start: {reason}")
        how = describe_exit(code, last_line)
        ended, again = [], []
        for job in worker.jobs.values():
            if self.store.has(job.config.key):  # it died between storing the run and saying so
                ended.append(self._finish(job, self.store.load(job.config.key)))
                continue
            self._lost_workers[job.config.key] += 1
            if self._lost_workers[job.config.key] < self.attempts:
                again.append(job)
            else:
                ended.append(self._fail(job, f"its worker process {how}, {self.attempts} times"))
        starts = "it starts again" if len(worker.fleet) == 1 else "its runs start again one by one"
        self._retry_alone(again, f"its worker process {how}; {starts}")
        return ended

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess.start(self._execution.threads)
        self._workers.append(worker)
        worker.write(first_line(self.store, self._execution))
        worker.listen(lambda worker, message: self._inbox.put((worker, message)))
        return worker
