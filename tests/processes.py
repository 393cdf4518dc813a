"""Several processes that meet as torchrun's do, forked from one, so that torch is loaded once.

What torchrun adds (its agent, which ends all when one fails) is tested by `make distributed`.
"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # which optimizers load when first used: once, before there are processes
import torch.distributed as dist

NEEDED = pytest.mark.skipif(
    not (dist.is_available() and hasattr(os, "fork")),
    reason="needs torch.distributed and a system that forks",
)


HANGS_AFTER = 200
"""Seconds after which a process that others may wait for is ended."""


def run_script(script: str, folder: Path, timeout: float = HANGS_AFTER + 40) -> None:
    """Run a child script, which calls `fork`, with `folder` as its argument; show what failed."""
    root = str(Path(__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, script, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]


def torchrun(size: int, *command: str, folder: Path, timeout: float = 600) -> Any:
    """Run a script, or ``-m`` and a module, by torchrun in `folder`; the finished process."""
    root = str(Path(__file__).parents[1])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size)]
    return subprocess.run(
        [*launcher, *command], cwd=folder, text=True, timeout=timeout, check=False,
        capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
    )  # fmt: skip


def fork(size: int, work: Callable[[int], Any], folder: Path) -> None:
    """Let `size` processes do `work(rank)`, each in torchrun's environment; keep what it gives.

    Raises:
        SystemExit: one of them failed, and has said why.
    """
    torch.set_num_threads(1)
    port, keeper, end = _keep_store()
    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            os._exit(_child(rank, size, port, work, folder))
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(end)
    os.waitpid(keeper, 0)
    if any(codes):
        raise SystemExit(f"the processes ended with {codes}")


def _keep_store() -> tuple[int, int, int]:
    """A process with the store where the others meet: its port, its pid, and what ends it, closed.

    torchrun's agent has the store, which lives on when a process has ended. A store has threads,
    and whoever forks beside a thread may copy a lock that the thread holds, for good: so it is in
    a process that forks nobody.
    """
    (ready, tell), (wait, end) = os.pipe(), os.pipe()
    keeper = os.fork()
    if not keeper:
        os.close(end)
        try:
            torch_dist: Any = dist
            store = torch_dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            os.write(tell, str(store.port).encode())
            os.read(wait, 1)  # until whoever has the other end closes it, or dies
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(tell)
    os.close(wait)
    port = int(os.read(ready, 16))
    os.close(ready)
    return port, keeper, end


def _child(rank: int, size: int, port: int, work: Callable[[int], Any], folder: Path) -> int:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True",
    )  # fmt: skip
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)  # and it says where
    try:
        torch.save(work(rank), folder / f"{rank}.pt")
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    sys.stdout.flush()
    return 0


def found(folder: Path, size: int) -> list[Any]:
    """What each process gave."""
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def meet_again() -> None:
    """Before processes meet once more: as torchrun does when it restarts them."""
    count = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(count + 1)
