"""A worker process as its parent sees it: started, given runs, listened to, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from gclip.execution.job import Job
from gclip.execution.worker import BOOT

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

Message = dict[str, Any]


@dataclass(eq=False)
class WorkerProcess:
    """A worker process and its runs.

    Attributes:
        process: of the worker.
        errors: what it wrote on its standard error.
        jobs: those of its runs that have not ended, by index.
        fleet: the indices of all the runs that it was given last.
        ready: whether it has said that it is.
    """

    process: subprocess.Popen[str]
    errors: IO[bytes]
    jobs: dict[int, Job] = field(default_factory=dict)
    fleet: frozenset[int] = frozenset()
    ready: bool = False

    @classmethod
    def start(cls, threads: int) -> WorkerProcess:
        """A fresh Python with its own thread count.

        It is started with ``subprocess``, not ``multiprocessing``: a caller's script needs no
        ``if __name__ == "__main__"`` guard, and a killed worker cannot leave a shared lock held.
        """
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                env=environment(threads),
                # A group of its own: the terminal's Ctrl-C goes to the parent alone.
                process_group=0,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except BaseException:
            errors.close()
            raise
        return cls(process, errors)

    def listen(self, hear: Callable[[WorkerProcess, Message | None], None]) -> None:
        """From now on tell `hear`, in a thread, what the worker says, and at last its end: None."""
        threading.Thread(target=self._read, args=(hear,), daemon=True).start()

    def give(self, jobs: Sequence[Job], *, ask: bool) -> None:
        """Hand over runs. A worker that is already dead is noticed by its reader, not here."""
        self.jobs = {job.index: job for job in jobs}
        self.fleet = frozenset(self.jobs)
        runs = [{"index": job.index, "config": job.config.to_json()} for job in jobs]
        self.send({"runs": runs, "ask": ask})

    def send(self, message: Message) -> None:
        """Write one line of the protocol."""
        self.write(json.dumps(message) + "\n")

    def write(self, line: str) -> None:
        """Write to the worker's standard input, if it still has one."""
        if self.process.stdin is None:
            raise RuntimeError("a worker is started with a pipe as its input")
        with contextlib.suppress(OSError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def end(self) -> None:
        """Kill, reap and close everything; fine on a worker that is already gone."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was still in a dead worker's pipe
                    pipe.close()

    def last_error_line(self) -> str:
        """The last line that it wrote on its standard error; empty if there is none."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _read(self, hear: Callable[[WorkerProcess, Message | None], None]) -> None:
        if self.process.stdout is None:
            raise RuntimeError("a worker is started with a pipe as its output")
        # ValueError: half a line from a killed worker, or the pipe closed on our side.
        with contextlib.suppress(OSError, ValueError):
            for line in self.process.stdout:
                hear(self, json.loads(line))
        hear(self, None)


def environment(threads: int) -> dict[str, str]:
    """The variables of a process whose computations have so many threads."""
    return {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}


def describe_exit(code: int, last_line: str) -> str:
    """How a process ended, in words that follow its name."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (out of memory? fewer --workers need less)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"
    return f"ended with exit code {code}" + (f" ({last_line})" if last_line else "")
