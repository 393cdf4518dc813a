"""Worker processes that are really killed, and a parent that is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gclip.execution import (
    Event,
    Execution,
    Job,
    Processes,
    WorkersFailed,
    cores,
    run_all,
    workers_for,
)
from gclip.execution.run_all import open_pool
from gclip.results import Store
from gclip.training import RunConfig

TINY = RunConfig(fraction=0.1, epochs=1, batch_size=64, strategy="norm")
ENDLESS = RunConfig(epochs=10_000)
posix = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")


def on_cpu(workers: int = 1, **more: Any) -> Execution:
    return Execution(workers=workers, device="cpu", **more)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie is dead, though its parent has not asked about it.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@posix
def test_a_run_whose_worker_is_killed_is_trained_again_with_the_same_bits(tmp_path: Path) -> None:
    store, events = Store(tmp_path / "a", create=True), list[Event]()
    with Processes(store, on_cpu(listener=events.append)) as pool:
        pool.submit(Job(0, TINY))
        os.kill(pool.pids()[0], signal.SIGKILL)
        [(job, result)] = pool.wait()
        # The same worker goes on with the next run, and gives a mistake back as a failure.
        pool.submit(Job(1, TINY.replace(code="0" * 12)))
        [(_, failed)] = pool.wait()
    assert [event.kind for event in events if event.kind != "progress"] == [
        *("retried", "started", "done", "started", "failed")
    ]
    assert "SIGKILL" in events[0].message
    assert job.index == 0
    assert store.has(TINY.key)
    assert failed.status == "failed"
    assert "edited" in failed.message
    # One thread in a worker, one thread here: the same bits.
    [here] = run_all([TINY], Store(tmp_path / "b", create=True), workers=1, device="cpu")
    assert here.loss == result.loss
    assert (here.steps["norm"] == result.steps["norm"]).all()


@posix
def test_a_run_that_loses_two_workers_has_failed(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    with Processes(store, on_cpu()) as pool:
        start = pool._start

        def start_and_kill() -> Any:
            worker = start()
            worker.process.send_signal(signal.SIGKILL)
            return worker

        pool._start = start_and_kill  # type: ignore[method-assign]
        pool.submit(Job(0, TINY))
        [(_, result)] = pool.wait()
        assert pool.pids() == ()
    assert result.status == "failed"
    assert "SIGKILL" in result.message
    assert "2 times" in result.message
    assert store.status(TINY.key) == "failed"
    # The same command again trains it.
    [again] = run_all([TINY], store, workers=1, device="cpu")
    assert again.status == "finished"
    assert store.has(TINY.key)


def test_workers_that_cannot_start_say_why(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    with Processes(store, on_cpu(2, plugins=("no.such.module",))) as pool:
        pool.submit(Job(0, TINY))
        with pytest.raises(WorkersFailed, match=r"no\.such\.module"):
            pool.wait()


@posix
def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = f"""
from gclip.results import Store
from gclip.execution import *
from gclip.training import RunConfig
pool = open_pool(Store({str(tmp_path)!r}, create=True), Execution(
    workers=2, device="cpu", listener=lambda e: print(e.kind, *pool.pids(), flush=True)))
for seed in range(2):
    pool.submit(Job(seed, RunConfig(epochs=10_000, seed=seed)))
pool.wait()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert parent.stdout is not None
    line = parent.stdout.readline().split()
    assert line[0] == "started"
    pids = [int(pid) for pid in line[1:]]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def test_closing_a_pool_ends_its_workers(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    with open_pool(store, on_cpu(2)) as pool:
        assert isinstance(pool, Processes)
        assert pool.free == 2
        pool.submit(Job(0, ENDLESS))
        assert pool.free == 1
        pids = pool.pids()
    assert len(pids) == 1
    assert not any(alive(pid) for pid in pids)


def test_waiting_for_nothing_is_an_error_and_not_forever(tmp_path: Path) -> None:
    pool = Processes(Store(tmp_path, create=True), on_cpu())
    with pool, pytest.raises(RuntimeError, match="no run submitted"):
        pool.wait()


def test_one_worker_a_core_and_one_on_a_gpu() -> None:
    assert workers_for("cpu") == cores() >= 1
    assert workers_for("cuda:0") == 1
    assert workers_for("cuda", 3) == 3
    with pytest.raises(ValueError, match="workers must be a whole number from 1"):
        workers_for("cpu", 0)
