"""Processes that gclip starts with a fresh Python, forked from one that has loaded torch.

Loading torch takes longer than most of what they are started for. The programs are the same, and
so are their pipes, environment and process group; whoever started one can wait for it and kill it.
What tests start themselves, whole commands and their workers, begins with a fresh Python.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gclip.bench import fleet
from gclip.execution.worker import BOOT

PROGRAMS = (
    BOOT,
    fleet._BOOT,
    "from gclip.testing.process import main; main()",
    "from gclip.training.contract.other_process import main; main()",
)
RUN = """
import os, sys, traceback

def run(program, names):
    code = 0
    try:
        exec(program, {"__name__": "__main__", **names})
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""
"""A program to its end, in a process that was forked for it."""
PARENT = (
    RUN
    + """
import json, random, signal, socket
import numpy, pandas, torch, torch._dynamo
import gclip.execution.job_trainer, gclip.execution.worker, gclip.results, gclip.testing.process
import gclip.training.fleet.train, gclip.training.trainer
from gclip.training.contract import other_process

path = list(sys.path)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks

def become(order, files):
    os.chdir(order["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order["environment"])
    if order["group"] is not None:
        os.setpgid(0, order["group"])
    for file, number in zip(files, order["numbers"]):
        os.dup2(file, number)
        os.close(file)
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *path]
    random.seed(), numpy.random.seed(), torch.seed()
    run(order["program"], {})

asked = socket.socket(fileno=int(sys.argv[1]))
while True:
    message, files, _, _ = socket.recv_fds(asked, 1 << 20, 3)
    if not message:
        break
    told, tell = os.pipe()
    child = os.fork()
    if not child:  # its own child is left to whoever asked, who can wait for it
        pid = os.fork()
        if not pid:
            asked.close()
            become(json.loads(message), files)
        os.write(tell, str(pid).encode())
        os._exit(0)
    os.waitpid(child, 0)
    for file in (tell, *files):
        os.close(file)
    asked.send(os.read(told, 16))
    os.close(told)
"""
)


class Parent:
    """The process that has loaded torch."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(__file__).parents[1])
        # Hashes of text differ from process to process, as they do for users.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONHASHSEED", None)
        self._process = _POPEN(
            [sys.executable, "-c", PARENT, str(other.fileno())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=root,
            pass_fds=[other.fileno()], env=environment,
        )  # fmt: skip
        other.close()
        self._one_at_a_time = threading.Lock()

    def start(self, files: dict[int, int], **order: Any) -> int:
        """A process with these files as its standard ones; its pid, which is a child's of ours."""
        message = json.dumps({**order, "numbers": list(files)}).encode()
        with self._one_at_a_time, _adopting():
            socket.send_fds(self._socket, [message], list(files.values()))
            return int(self._socket.recv(16))

    def close(self) -> None:
        """End it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._process.wait()


def _adopt(orphans: bool) -> bool:
    """Whether orphans below this process can become its children, as from now on (`man prctl`)."""
    if not sys.platform.startswith("linux"):
        return False
    set_child_subreaper = 36
    answer: int = ctypes.CDLL(None).prctl(set_child_subreaper, int(orphans), 0, 0, 0)
    return answer == 0


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    _adopt(True)
    try:
        yield
    finally:
        _adopt(False)


_POPEN: Any = subprocess.Popen
_parent: list[Parent] = []


class ForkingPopen(_POPEN):
    """Popen, whose children are forked where they are one of `PROGRAMS`."""

    def _execute_child(self, *arguments: Any) -> None:
        names = [*inspect.signature(_POPEN._execute_child).parameters][1:]
        given = dict(zip(names, arguments, strict=True))
        args = given["args"]
        if not isinstance(args, list) or args[0] != sys.executable or args[-1] not in PROGRAMS:
            super()._execute_child(*arguments)
            return
        if not _parent:
            _parent.append(Parent())
        ends = {0: given["p2cread"], 1: given["c2pwrite"], 2: given["errwrite"]}
        environment = os.environ if given["env"] is None else given["env"]
        group = given["process_group"]
        self.pid = _parent[0].start(
            {number: end for number, end in ends.items() if end != -1},
            program=args[-1], environment=dict(environment), folder=given["cwd"] or os.getcwd(),
            group=None if group == -1 else group,
        )  # fmt: skip
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipes))


@contextlib.contextmanager
def forking() -> Iterator[None]:
    """While gclip's processes are forked; where a system cannot, they are started."""
    if not _adopt(False):
        yield
        return
    subprocess.Popen = ForkingPopen
    try:
        yield
    finally:
        subprocess.Popen = _POPEN
        while _parent:
            _parent.pop().close()
