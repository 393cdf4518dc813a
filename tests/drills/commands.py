"""Commands that are killed, their processes, and whether what they make is the same in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gclip.results import Store
from gclip.training.contract.bits import difference

PATIENCE = 600.0
ORPHANS = 5.0
"""Seconds after its parent's death in which every worker has to be gone."""


def start(folder: Path, store: str, *arguments: str) -> subprocess.Popen[str]:
    """A command in a folder, with a checkpoint at every epoch's end."""
    return subprocess.Popen(
        [sys.executable, "-m", "gclip", *arguments, "--store", store, "--checkpoint-every", "0"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(folder: Path, store: str, *arguments: str) -> None:
    """Run a command to its end."""
    process = start(folder, store, *arguments)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said


def wait_for(process: subprocess.Popen[str], path: Path) -> bool:
    """Until a folder has something in it; False if the process has ended before."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if path.is_dir() and any(path.iterdir()):
            return True
        time.sleep(0.005)
    return False


def children_of(pid: int) -> list[int]:
    """The process ids of a process's children."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(each) for each in path.read_text().split()]
    except OSError:
        return []


def are_alive(pids: list[int]) -> list[int]:
    """Those that are; a zombie is dead, though its parent has not asked about it."""

    def is_alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return [pid for pid in pids if is_alive(pid)]


def outliving(pids: list[int]) -> list[int]:
    """Those that are alive `ORPHANS` seconds from now."""
    deadline = time.monotonic() + ORPHANS
    while are_alive(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return are_alive(pids)


def differences(store: Path, reference: Path) -> Iterator[str]:
    """How the runs of a store differ from those of another; nothing where all bits are equal."""
    ours, theirs = Store(store), Store(reference)
    if ours.keys() != theirs.keys():
        yield f"{len(ours.keys())} runs instead of {len(theirs.keys())}"
    for key in set(ours.keys()) & set(theirs.keys()):
        said = difference(ours.load(key), theirs.load(key), "uninterrupted")
        if said is not None:
            yield f"{key[:12]}: {said}"
