"""Where runs are trained: in this process, or in a pool of processes of one thread each.

Both kinds of pool take a run with `submit` and give results back from `wait`; who decides which
run comes next (a fixed list, an Optuna study) does not see the difference. A worker that dies
(``kill -9``, out of memory) costs its run one retry; a run that loses two workers has failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from gclip.errors import UsageError
from gclip.running.events import Event, Kind, Listener, ignore
from gclip.running.worker import BOOT, WorkerSettings, ask_at_epochs, code_changed, describe

if TYPE_CHECKING:
    from gclip.results import Store
    from gclip.training import Dataset, Progress, RunConfig, RunResult

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class WorkersFailed(RuntimeError):
    """Worker processes do not start; the message holds the last line they wrote."""


@dataclass(frozen=True)
class Job:
    """One run in a pool: its place in the asker's list, and its config."""

    index: int
    config: RunConfig


Judge = Callable[[Job, "Progress"], bool]
"""Asked at the end of every epoch but the last whether a run should go on."""


class Pool(ABC):
    """Trains runs and stores their results; use it as a context manager.

    Attributes:
        judge: decides at the end of an epoch whether a run goes on, which waits for the answer;
            a run that does not has the status ``pruned``. None: all go on.
        attempts: so many workers may a run lose; then it has failed.
    """

    def __init__(self, store: Store, listener: Listener = ignore) -> None:
        self.store = store
        self.judge: Judge | None = None
        self.attempts = 2
        self._listener = listener

    @property
    @abstractmethod
    def free(self) -> int:
        """How many more runs could begin at once."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a run. It begins now or when a worker is free."""

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

    def _fail(self, job: Job, message: str) -> tuple[Job, RunResult]:
        from gclip.training import RunResult

        result = RunResult.failed(job.config, message)
        with contextlib.suppress(UsageError):  # a full disk is perhaps why it failed
            self.store.save(result)
        return self._finish(job, result)


class InProcess(Pool):
    """One run after another in this process: for a single worker, and for a GPU."""

    def __init__(
        self,
        store: Store,
        settings: WorkerSettings,
        listener: Listener = ignore,
        dataset: Dataset | None = None,
    ) -> None:
        super().__init__(store, listener)
        self._settings = settings
        self._waiting: deque[Job] = deque()
        self._datasets = {} if dataset is None else {dataset.name: dataset}

    @property
    def free(self) -> int:
        return 0 if self._waiting else 1

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def wait(self) -> list[tuple[Job, RunResult]]:
        job = self._waiting.popleft()
        self._tell("started", job)
        try:
            result = self._train(job)
            self.store.save(result)
        except Exception as error:
            return [self._fail(job, describe(error))]
        return [self._finish(job, result)]

    def _train(self, job: Job) -> RunResult:
        from gclip.training import load_dataset, train

        changed = code_changed(job.config)
        if changed:
            raise ValueError(changed)
        task = job.config.task
        if task not in self._datasets:
            self._datasets[task] = load_dataset(task, self._settings.data, download=False)

        judge = self.judge

        def say(progress: Progress, asks: bool) -> bool:
            self._tell("progress", job, progress=progress)
            return judge(job, progress) if asks and judge is not None else True

        return train(
            job.config,
            dataset=self._datasets[task],
            device=self._settings.device,
            threads=self._settings.threads,
            on_progress=ask_at_epochs(say),
        )


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[str]
    errors: IO[bytes]
    job: Job | None = None
    ready: bool = False

    def give(self, job: Job, *, ask: bool) -> None:
        """Hand over a run. A worker that is already dead is noticed by its reader, not here."""
        self.job = job
        order = {"index": job.index, "config": job.config.to_json(), "ask": ask}
        self.write(json.dumps(order) + "\n")

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


class Processes(Pool):
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
        super().__init__(store, listener)
        self._settings = settings
        self._count = count
        self._workers: list[_Worker] = []
        self._waiting: deque[Job] = deque()
        self._lost: dict[int, int] = {}
        self._heard: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()

    @property
    def free(self) -> int:
        busy = sum(worker.job is not None for worker in self._workers)
        return max(0, self._count - busy - len(self._waiting))

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        self._hand_out()

    def wait(self) -> list[tuple[Job, RunResult]]:
        if not self._waiting and all(worker.job is None for worker in self._workers):
            raise RuntimeError("wait() with no run submitted would never return")
        while True:
            worker, message = self._listen()
            ended = self._bury(worker) if message is None else self._understand(worker, message)
            self._hand_out()
            if ended is not None:
                return [ended]

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
        while self._waiting:
            idle = next((worker for worker in self._workers if worker.job is None), None)
            if idle is None:
                if len(self._workers) >= self._count:
                    return
                idle = self._start()
            idle.give(self._waiting.popleft(), ask=self.judge is not None)
            if idle.ready and idle.job is not None:
                self._tell("started", idle.job)

    def _understand(self, worker: _Worker, message: dict[str, Any]) -> tuple[Job, RunResult] | None:
        from gclip.training import Progress

        kind, job = message["kind"], worker.job
        if kind == "ready":
            worker.ready = True
            if job is not None:
                self._tell("started", job)
            return None
        if job is None or message["index"] != job.index:
            return None
        if kind == "progress":
            progress = Progress(**message["progress"])
            self._tell("progress", job, progress=progress)
            if message["asks"]:
                go = self.judge is None or self.judge(job, progress)
                worker.write(json.dumps({"go": go}) + "\n")
            return None
        worker.job = None
        if kind == "failed":
            return self._fail(job, message["message"])
        return self._finish(job, self.store.load(job.config.key))

    def _bury(self, worker: _Worker) -> tuple[Job, RunResult] | None:
        """A worker is gone: its run begins again elsewhere, or has failed."""
        self._workers.remove(worker)
        code = worker.process.wait()
        words = worker.last_words()
        worker.end()
        if not worker.ready and code > 0:
            raise WorkersFailed(f"a worker process does not start: {words or f'exit code {code}'}")
        job = worker.job
        if job is None:
            return None
        if self.store.has(job.config.key):  # it died between storing the run and saying so
            return self._finish(job, self.store.load(job.config.key))
        self._lost[job.index] = self._lost.get(job.index, 0) + 1
        how = _cause(code, words)
        if self._lost[job.index] < self.attempts:
            self._tell("retried", job, message=f"its worker process {how}; it starts again")
            self._waiting.appendleft(job)
            return None
        return self._fail(job, f"its worker process {how}, {self.attempts} times")

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


def _cause(code: int, words: str) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (out of memory? fewer --workers need less)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"
    return f"ended with exit code {code}" + (f" ({words})" if words else "")
