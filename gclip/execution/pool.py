"""Where runs are trained: in this process, or in a pool of processes of one thread each.

Both kinds of pool take a run with `submit` and give results back from `wait`; who decides which
run comes next (a fixed list, an Optuna study) does not see the difference. A worker that dies
(``kill -9``, out of memory) costs its run one retry; a run that loses two workers has failed.

A worker may be given several runs to train as one fleet. Each result is in the store the moment
its run ends. If the worker dies or the fleet raises, the runs that had not ended begin again one by
one, so that one that kills what it touches takes no other with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from gclip.errors import UsageError
from gclip.execution.events import Event, Kind, Listener, ignore
from gclip.execution.job import Job
from gclip.execution.queue import JobQueue
from gclip.execution.worker import (
    BOOT,
    WorkerSettings,
    ask_at_epochs,
    code_changed,
    describe,
    train_together,
)

if TYPE_CHECKING:
    from gclip.execution.fleet_sizing import Speedup, Workload
    from gclip.results import Store
    from gclip.training import Dataset, Progress, RunConfig, RunResult

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


_WORK = (
    "waiting",
    "workers",
    "most",
    "rounds",
)  # of `gclip.execution.fleet_sizing.Workload`: numbers


class WorkersFailed(RuntimeError):
    """Worker processes do not start; the message holds the last line they wrote."""


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
        """How many more runs could begin at once; a worker with a fleet in its hands has no room
        until the last of its runs has ended."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a run. It begins now or when a worker is free; in fleets, on `wait`."""

    def submit_all(self, jobs: Sequence[Job]) -> None:
        """Take all the runs that there will be: known to be the last, they are spread evenly."""
        for job in jobs:
            self.submit(job)

    @abstractmethod
    def wait(self) -> list[tuple[Job, RunResult]]:
        """Block until at least one submitted run has ended; the results are in the store."""

    def close(self) -> None:  # noqa: B027 - a pool without processes has nothing to stop
        """Stop at once. Runs in progress are given up; those that ended are stored."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _tell(self, kind: Kind, job: Job, **more: Any) -> None:
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


class Training(Pool):
    """A pool that trains, in fleets where it is told so."""

    def __init__(
        self, store: Store, settings: WorkerSettings, workers: int, listener: Listener = ignore
    ) -> None:
        super().__init__(store, listener)
        self._settings = settings
        self._waiting = JobQueue(settings.fleet, workers, self._note)

    def submit(self, job: Job) -> None:
        self._waiting.add(job)

    def submit_all(self, jobs: Sequence[Job]) -> None:
        self._waiting.complete = True
        super().submit_all(jobs)

    def measure(
        self,
        configs: Sequence[RunConfig],
        dataset: Dataset,
        work: Workload,
        cap: int,
        steps: float,
    ) -> Speedup | None:
        """`fleet_sizing.measure`, done by those who will train, all at the same time."""
        from gclip.execution import fleet_sizing

        return fleet_sizing.measure(configs, dataset, work, cap, steps)

    def resize(self, fleet: int) -> None:
        """From now on fleets have at most so many runs; 1: there are none."""
        self._settings = dataclasses.replace(self._settings, fleet=fleet)
        self._waiting.size = fleet


class InProcess(Training):
    """One run, or one fleet, after another in this process: for a single worker, and for a GPU."""

    def __init__(
        self,
        store: Store,
        settings: WorkerSettings,
        listener: Listener = ignore,
        dataset: Dataset | None = None,
    ) -> None:
        super().__init__(store, settings, 1, listener)
        self._datasets = {} if dataset is None else {dataset.name: dataset}

    @property
    def free(self) -> int:
        return max(0, self._settings.fleet - len(self._waiting))

    def wait(self) -> list[tuple[Job, RunResult]]:
        while True:
            jobs = self._waiting.take()
            for job in jobs:
                self._tell("started", job)
            ended = [self._alone(jobs[0])] if len(jobs) == 1 else self._together(jobs)
            if ended:
                return ended

    def _alone(self, job: Job) -> tuple[Job, RunResult]:
        try:
            result = self._train(job)
            self.store.save(result)
        except Exception as error:
            return self._fail(job, describe(error))
        return self._finish(job, result)

    def _together(self, jobs: Sequence[Job]) -> list[tuple[Job, RunResult]]:
        """Train a fleet; if it raises, those that had not ended wait again, each for itself."""
        ended: list[tuple[Job, RunResult]] = []
        going: list[Job] = []
        for job in jobs:
            changed = code_changed(job.config)
            if changed:
                ended.append(self._fail(job, changed))
            else:
                going.append(job)

        def say(place: int, progress: Progress, asks: bool) -> bool:
            return self._report_progress(going[place], progress, asks)

        def keep(place: int, result: RunResult) -> None:
            self.store.save(result)
            ended.append(self._finish(going[place], result))

        try:
            configs = [job.config for job in going]
            if configs:
                train_together(
                    configs, self._dataset(configs[0].task), self._settings, say=say, keep=keep
                )
        except Exception as error:
            done = {job.index for job, _ in ended}
            left = [job for job in going if job.index not in done]
            self._retry(left, broken(len(jobs), describe(error)))
            self._waiting.again(left)
        return ended

    def _train(self, job: Job) -> RunResult:
        from gclip.training import train

        changed = code_changed(job.config)
        if changed:
            raise ValueError(changed)

        def say(progress: Progress, asks: bool) -> bool:
            return self._report_progress(job, progress, asks)

        return train(
            job.config,
            dataset=self._dataset(job.config.task),
            device=self._settings.device,
            threads=self._settings.threads,
            on_progress=ask_at_epochs(say),
        )

    def _report_progress(self, job: Job, progress: Progress, asks: bool) -> bool:
        self._tell("progress", job, progress=progress)
        return (
            self.should_continue(job, progress)
            if asks and self.should_continue is not None
            else True
        )

    def _dataset(self, task: str) -> Dataset:
        from gclip.training import load_dataset

        if task not in self._datasets:
            self._datasets[task] = load_dataset(task, self._settings.data, download=False)
        return self._datasets[task]


@dataclass(eq=False)
class _Worker:
    """A worker process; what it was given, and of that what has not ended, by index."""

    process: subprocess.Popen[str]
    errors: IO[bytes]
    jobs: dict[int, Job] = field(default_factory=dict)
    given: frozenset[int] = frozenset()
    ready: bool = False

    def give(self, jobs: Sequence[Job], *, ask: bool) -> None:
        """Hand over runs. A worker that is already dead is noticed by its reader, not here."""
        self.jobs = {job.index: job for job in jobs}
        self.given = frozenset(self.jobs)
        runs = [{"index": job.index, "config": job.config.to_json()} for job in jobs]
        self.write(json.dumps({"runs": runs, "ask": ask}) + "\n")

    def write(self, line: str) -> None:
        if self.process.stdin is None:
            raise RuntimeError("a worker is started with a pipe as its input")
        with contextlib.suppress(OSError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def last_words(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def end(self) -> None:
        """Kill, reap and close everything; fine on a worker that is already gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was still in a dead worker's pipe
                    pipe.close()


class Processes(Training):
    """Worker processes, each a fresh Python with its own thread count, started when needed.

    They are started with ``subprocess``, not ``multiprocessing``: a caller's script needs no
    ``if __name__ == "__main__"`` guard, and a killed worker cannot leave a shared lock held.
    """

    def __init__(
        self,
        store: Store,
        settings: WorkerSettings,
        count: int,
        listener: Listener = ignore,
    ) -> None:
        super().__init__(store, settings, count, listener)
        self._count = count
        self._workers: list[_Worker] = []
        self._lost: dict[int, int] = {}
        self._heard: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()

    @property
    def free(self) -> int:
        return max(0, self._idle * self._settings.fleet - len(self._waiting))

    @property
    def _idle(self) -> int:
        """Workers without a run, those that were not started yet among them."""
        return self._count - sum(bool(worker.jobs) for worker in self._workers)

    def submit(self, job: Job) -> None:
        super().submit(job)
        if self._settings.fleet == 1:
            self._hand_out()

    def wait(self) -> list[tuple[Job, RunResult]]:
        if not self._waiting and not any(worker.jobs for worker in self._workers):
            raise RuntimeError("wait() with no run submitted would never return")
        while True:
            self._hand_out()
            worker, message = self._listen()
            ended = self._bury(worker) if message is None else self._understand(worker, message)
            if ended:
                if self._settings.fleet == 1:
                    self._hand_out()
                return ended

    def measure(
        self,
        configs: Sequence[RunConfig],
        dataset: Dataset,
        work: Workload,
        cap: int,
        steps: float,
    ) -> Speedup | None:
        from gclip.execution.fleet_sizing import Speedup

        while len(self._workers) < self._count:
            self._start()
        while not all(worker.ready for worker in self._workers):
            worker, message = self._listen()
            if message is None:
                self._bury(worker)
            else:
                self._understand(worker, message)
        order = {
            "configs": [config.to_json() for config in configs],
            "work": {name: getattr(work, name) for name in _WORK},
            "cap": cap,
            "steps": steps,
        }
        asked = list(self._workers)
        for worker in asked:
            worker.write(json.dumps({"measure": order}) + "\n")
        found: list[Speedup | None] = []
        while len(found) < len(asked):
            worker, message = self._listen()
            if message is None:
                self._bury(worker)
            found.append(None if message is None else Speedup.of(message["finding"]))
        able = [each for each in found if each is not None]
        # One that could not, or need not, measure is as good as none: then there are no fleets.
        return Speedup.together(able) if able and len(able) == len(found) else None

    def pids(self) -> tuple[int, ...]:
        """The process ids of the living workers."""
        return tuple(worker.process.pid for worker in self._workers)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _listen(self) -> tuple[_Worker, dict[str, Any] | None]:
        while True:
            # In slices, because an endless wait cannot be interrupted by Ctrl-C everywhere.
            with contextlib.suppress(queue.Empty):
                worker, message = self._heard.get(timeout=0.5)
                if worker in self._workers:
                    return worker, message

    def _hand_out(self) -> None:
        while self._waiting and self._idle > 0:
            idle = next((worker for worker in self._workers if not worker.jobs), None)
            if idle is None:
                idle = self._start()
            idle.give(self._waiting.take(self._idle), ask=self.should_continue is not None)
            if idle.ready:
                self._started(idle)

    def _started(self, worker: _Worker) -> None:
        for job in worker.jobs.values():
            self._tell("started", job)

    def _understand(self, worker: _Worker, message: dict[str, Any]) -> list[tuple[Job, RunResult]]:
        from gclip.training import Progress

        kind = message["kind"]
        if kind == "ready":
            worker.ready = True
            self._started(worker)
            return []
        if kind == "broken":
            if message["index"] not in worker.given:  # all its runs had ended before
                return []
            left = list(worker.jobs.values())
            worker.jobs = {}
            self._retry(left, broken(len(worker.given), message["message"]))
            self._waiting.again(left)
            return []
        job = worker.jobs.get(message["index"])
        if job is None:
            return []
        if kind == "progress":
            progress = Progress(**message["progress"])
            self._tell("progress", job, progress=progress)
            if message["asks"]:
                go = self.should_continue is None or self.should_continue(job, progress)
                worker.write(json.dumps({"go": go}) + "\n")
            return []
        del worker.jobs[job.index]
        if kind == "failed":
            return [self._fail(job, message["message"])]
        return [self._finish(job, self.store.load(job.config.key))]

    def _bury(self, worker: _Worker) -> list[tuple[Job, RunResult]]:
        """A worker is gone: its runs begin again elsewhere, one by one, or have failed."""
        self._workers.remove(worker)
        code = worker.process.wait()
        words = worker.last_words()
        worker.end()
        if not worker.ready and code > 0:
            raise WorkersFailed(f"a worker process does not start: {words or f'exit code {code}'}")
        how = _cause(code, words)
        ended, again = [], []
        for job in worker.jobs.values():
            if self.store.has(job.config.key):  # it died between storing the run and saying so
                ended.append(self._finish(job, self.store.load(job.config.key)))
                continue
            self._lost[job.index] = self._lost.get(job.index, 0) + 1
            if self._lost[job.index] < self.attempts:
                again.append(job)
            else:
                ended.append(self._fail(job, f"its worker process {how}, {self.attempts} times"))
        starts = "it starts again" if len(worker.given) == 1 else "its runs start again one by one"
        self._retry(again, f"its worker process {how}; {starts}")
        self._waiting.again(again)
        return ended

    def _start(self) -> _Worker:
        threads = str(self._settings.threads)
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, threads)},
                # A group of its own: the terminal's Ctrl-C goes to the parent alone.
                process_group=0,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except BaseException:
            errors.close()
            raise
        worker = _Worker(process, errors)
        self._workers.append(worker)
        worker.write(self._settings.line())
        threading.Thread(target=self._read, args=(worker,), daemon=True).start()
        return worker

    def _read(self, worker: _Worker) -> None:
        """One thread a worker: put what it says, and at last its silence, into the queue."""
        if worker.process.stdout is None:
            raise RuntimeError("a worker is started with a pipe as its output")
        # ValueError: half a line from a killed worker, or the pipe closed on our side.
        with contextlib.suppress(OSError, ValueError):
            for line in worker.process.stdout:
                self._heard.put((worker, json.loads(line)))
        self._heard.put((worker, None))


def broken(count: int, message: str) -> str:
    """What is said of a fleet of `count` runs that raised."""
    return f"its fleet of {count} failed ({message}); its runs start again one by one"


def _cause(code: int, words: str) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (out of memory? fewer --workers need less)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"
    return f"ended with exit code {code}" + (f" ({words})" if words else "")
