"""Kills real writers with SIGKILL and looks at what they left (run by test_crash.py).

Started as a process of its own, so that it forks with one thread. Prints one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from gclip.results import Store


def config_of(number: int) -> str:
    values = {"seed": number, "strategy": "n", "task": "digits"}
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def key_of(number: int) -> str:
    return hashlib.sha256(config_of(number).encode()).hexdigest()


def result(number: int, status: str = "finished", length: int = 20_000) -> Any:
    config = SimpleNamespace(key=key_of(number), to_json=lambda: config_of(number))
    steps = {"norm": np.random.default_rng(number).random(length, dtype=np.float32)}
    return SimpleNamespace(
        config=config,
        status=status,
        steps=steps,
        layers=None,
        environment={},
        to_dict=lambda: {"status": status, "accuracy": 0.5},
    )


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def killed_at_random(path: Path, rounds: int) -> dict[str, int]:
    """A writer stores run after run until it is killed, at a random moment."""
    random.seed(0)
    store = Store(path, create=True)
    begun = time.monotonic()
    for number in range(3):
        store.save(result(number))
    one = (time.monotonic() - begun) / 3  # disks differ: kill after so many saves, not seconds
    seen = 3

    def work() -> None:
        number = len(Store(path).keys())
        while True:
            store.save(result(number))
            number += 1

    orphans = 0
    for _ in range(rounds):
        pid = child(work)
        time.sleep(0.01 + 4 * one * random.random())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        orphans += sum(path.suffix != ".lock" for path in (store.path / ".tmp").iterdir())
        keys = store.keys()
        assert len(keys) >= seen, "a stored run vanished"
        seen = len(keys)
        assert all(store.has(key) for key in keys), "half a run was stored"
        store.sweep()
        assert all(path.suffix == ".lock" for path in (store.path / ".tmp").iterdir())
    return {"stored": seen, "orphans": orphans}


def killed_everywhere(path: Path) -> dict[str, int]:
    """A writer is killed before its first, second … system call, fresh and replacing a failure."""
    store = Store(path, create=True)
    points = 0
    for standing in (None, "failed"):
        number = 1 if standing is None else 2
        last = False
        countdown = 0
        while not last:
            if standing is not None and store.status(key_of(number)) is None:
                store.save(result(number, standing, length=10))

            def work(countdown: int = countdown, number: int = number) -> None:
                left = countdown

                def counted(real: Callable[..., Any]) -> Callable[..., Any]:
                    def call(*args: Any, **kwargs: Any) -> Any:
                        nonlocal left
                        if left == 0:
                            os.kill(os.getpid(), signal.SIGKILL)
                        left -= 1
                        return real(*args, **kwargs)

                    return call

                for name in ("fsync", "rename", "mkdir", "open", "rmdir", "unlink"):
                    setattr(os, name, counted(getattr(os, name)))
                store.save(result(number, length=10))

            pid = child(work)
            _, code = os.waitpid(pid, 0)
            last = os.WIFEXITED(code)
            assert store.status(key_of(number)) in (None, standing, "finished")
            assert not last or store.has(key_of(number))
            if store.has(key_of(number)) and not last:
                # Make it missing (or failed) again for the next point.
                (path / key_of(number)).rename(path / f"gone-{points}-{number}")
            countdown += 1
            points += 1
        store.sweep()
        assert all(path.suffix == ".lock" for path in (store.path / ".tmp").iterdir())
    return {"points": points}


def together(path: Path, writers: int, runs: int) -> dict[str, int]:
    """Several processes store the same runs at once, sweep, and replace each other's failures."""
    store = Store(path, create=True)

    def work(number: int) -> None:
        mine = Store(path, create=True)
        order = list(range(runs))
        random.Random(number).shuffle(order)
        for run in order:
            mine.save(result(run, "failed", length=50))
            mine.sweep()
            mine.save(result(run, "finished", length=50))
            if not mine.has(key_of(run)):
                os.kill(os.getpid(), signal.SIGABRT)  # a finished run must be there, for everybody

    pids = [child(lambda number=number: work(number)) for number in range(writers)]
    codes = [os.waitpid(pid, 0)[1] for pid in pids]
    assert codes == [0] * writers, codes
    keys = store.keys()
    assert len(keys) == runs
    assert all(store.has(key) for key in keys)
    assert not (path / ".damaged").exists(), "a run being replaced was taken for damage"
    store.sweep()
    assert all(path.suffix == ".lock" for path in (store.path / ".tmp").iterdir())
    return {"runs": len(keys)}


def full_disk(path: Path) -> dict[str, object]:
    """The system really refuses to write more (a file-size limit stands for a full disk)."""
    import resource

    store = Store(path, create=True)
    store.save(result(1, length=10))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        store.save(result(2))
    except ValueError as error:
        kept = store.has(key_of(1)) and not store.has(key_of(2))
        clean = all(path.suffix == ".lock" for path in (store.path / ".tmp").iterdir())
        return {"message": str(error), "kept": kept, "clean": clean}
    return {"message": "", "kept": False, "clean": False}


if __name__ == "__main__":
    warnings.simplefilter("error")  # a damaged run must not pass
    folder = Path(sys.argv[1])
    answer = {
        **killed_at_random(folder / "random", rounds=40),
        **killed_everywhere(folder / "everywhere"),
        **together(folder / "together", writers=4, runs=12),
        **full_disk(folder / "full"),
    }
    print(json.dumps(answer))
