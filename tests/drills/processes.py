"""Processes to be killed. All are forked from one that has loaded torch, as loading it again for
each would take most of the time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forked import RUN

PATIENCE = 600.0
COMMAND = "from gclip.cli.command import main; sys.exit(main())"
PARENT = (
    RUN
    + """
import json, signal
import torch, optuna, pandas
import gclip.cli.command, gclip.execution, gclip.training.fleet.train
gclip.names()

def become(order):
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["folder"])
    for number, name in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    sys.argv = ["gclip", *order["arguments"]]
    run(order["code"], {"sys": sys})

for line in sys.stdin:
    order = json.loads(line)
    if "code" in order:
        pid = os.fork()
        if not pid:
            become(order)
        answer = pid
    else:
        pid, status = os.waitpid(order["pid"], 0 if order["wait"] else os.WNOHANG)
        answer = os.waitstatus_to_exitcode(status) if pid else None
    print(json.dumps(answer), flush=True)
"""
)


class Loaded:
    """A process that has loaded torch, and starts others."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def ask(self, **order: Any) -> Any:
        """The answer to an order."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def start(self, folder: Path, *arguments: str, code: str = COMMAND) -> Started:
        """A command in a folder, or other `code`."""
        place = len(list(folder.glob("*.err")))
        out, err = folder / f"{place}.out", folder / f"{place}.err"
        order = {"folder": str(folder), "out": str(out), "err": str(err)}
        return Started(self, self.ask(code=code, arguments=arguments, **order), out, err)

    def run(self, folder: Path, *arguments: str) -> None:
        """A command, to its end."""
        started = self.start(folder, *arguments)
        assert started.wait() == 0, started.said

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@dataclass
class Started:
    """One of its processes; a context manager that ends it."""

    parent: Loaded
    pid: int
    out: Path
    err: Path
    code: int | None = None

    @property
    def said(self) -> str:
        """What it wrote on its standard error."""
        return self.err.read_text()

    def poll(self) -> int | None:
        """How it ended; None if it has not."""
        if self.code is None:
            self.code = self.parent.ask(pid=self.pid, wait=False)
        return self.code

    def wait(self) -> int:
        """How it ended, when it has."""
        if self.code is None:
            self.code = self.parent.ask(pid=self.pid, wait=True)
        assert self.code is not None
        return self.code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def children(self) -> list[int]:
        """The process ids of its children."""
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            return []
        return [int(each) for each in text.split()]

    def wait_for(self, folder: Path) -> bool:
        """Until a folder has something in it; False if the process has ended before."""
        deadline = time.monotonic() + PATIENCE
        while self.poll() is None and time.monotonic() < deadline:
            if folder.is_dir() and any(folder.iterdir()):
                return True
            time.sleep(0.002)
        return False

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self.wait()


def outliving(pids: list[int], seconds: float = 5.0) -> list[int]:
    """Those that are alive so many seconds from now; a zombie is dead."""

    def is_alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + seconds
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive
