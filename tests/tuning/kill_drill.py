"""Does a study survive ``kill -9``? Kills its processes at random, then counts the trials.

    python tests/tuning/kill_drill.py            # both drills, 60 trials each
    python tests/tuning/kill_drill.py sqlite --trials 20 --seed 3

On one machine a coordinator with two workers: a worker is killed five times, the coordinator twice.
On PostgreSQL two independent worker processes with a store each: three kills. A killed process is
started again, as a scheduler would. In the end there must be exactly so many complete trials as
were asked for, none of them twice, and none left running.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from optuna.trial import TrialState

from gclip.results import Store
from gclip.tuning.proposals import replaced_by
from gclip.tuning.sqlite import read_study, study_file
from tests.tuning.servers import postgres, read_study_at

if TYPE_CHECKING:
    from optuna import Study

TINY = ("--fraction", "0.1", "--epochs", "4", "--batch-size", "64")
PATIENCE = 600.0


def on_one_machine(
    folder: Path, *, trials: int, worker_kills: int, coordinator_kills: int, seed: int
) -> str:
    """The drill of a coordinator with two workers; what happened, in a line."""
    store = folder / "runs"
    command = (
        *("study", "run", "thresholds", "-s", "norm", "--name", "drill", *TINY),
        *("--trials", str(trials), "--workers", "2", "--device", "cpu", "--store", str(store)),
    )
    kinds = ["worker"] * worker_kills + ["coordinator"] * coordinator_kills
    generator = random.Random(seed)
    generator.shuffle(kinds)
    killed: Counter[str] = Counter()
    process = _start(*command)
    try:
        for kind, after in zip(kinds, _moments(generator, trials, len(kinds)), strict=True):
            _wait_for_runs([store], after, process)
            time.sleep(generator.uniform(0.0, 0.5))
            if kind == "coordinator":
                process.kill()
                process.wait()
                process = _start(*command)
            else:
                os.kill(generator.choice(_workers_of(process)), signal.SIGKILL)
            killed[kind] += 1
        code = process.wait(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert code == 0, f"the coordinator ended with {code}"
    with read_study(study_file(store, "drill")) as study:
        told = _check(study, trials, [Store(store)])
    return f"SQLite, coordinator and two workers: {_said(killed)}; {told}"


def on_postgres(url: str, folder: Path, *, trials: int, kills: int, seed: int) -> str:
    """The drill of two workers that share nothing but the database."""
    name = f"drill-{os.getpid()}-{random.randrange(10**6)}"
    storage = ("--storage", url)
    create = _start(
        *("study", "create", "thresholds", "-s", "norm", "--name", name, *TINY),
        *("--trials", str(trials), "--heartbeat", "1", *storage),
    )
    assert create.wait(timeout=PATIENCE) == 0
    stores = [folder / "first", folder / "second"]
    commands = [
        (
            "study",
            "work",
            name,
            *storage,
            "--store",
            str(store),
            "--workers",
            "1",
            "--device",
            "cpu",
        )
        for store in stores
    ]
    generator = random.Random(seed)
    killed: Counter[str] = Counter()
    workers = [_start(*command) for command in commands]
    try:
        for after in _moments(generator, trials, kills):
            _wait_for_runs(stores, after, *workers)
            place = generator.choice(_busy(url, name, workers))
            time.sleep(generator.uniform(0.0, 0.1))
            workers[place].kill()
            workers[place].wait()
            workers[place] = _start(*commands[place])
            killed["worker"] += 1
        codes = [worker.wait(timeout=PATIENCE) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert codes == [0, 0], f"the workers ended with {codes}"
    with read_study_at(url, name) as study:
        told = _check(study, trials, [Store(store) for store in stores])
        study._storage.delete_study(study._study_id)
    return f"PostgreSQL, two worker processes: {_said(killed)}; {told}"


def _check(study: Study, trials: int, stores: list[Store]) -> str:
    """Raises AssertionError unless there are exactly `trials` complete trials, each once."""
    everything = study.get_trials(deepcopy=False)
    states = Counter(trial.state.name for trial in everything)
    assert states["COMPLETE"] == trials, states
    assert set(states) <= {"COMPLETE", "FAIL"}, states
    slots: Counter[int] = Counter()
    for trial in everything:
        if trial.state.name != "COMPLETE":
            continue
        number = trial.number
        while (replaced := replaced_by(everything[number])) is not None:
            number = replaced
        slots[number] += 1
        for key in trial.user_attrs["keys"]:
            assert any(store.has(key) for store in stores), f"trial {trial.number} has no run"
    assert len(slots) == trials, "a trial was lost"
    assert set(slots.values()) == {1}, "a trial is there twice"
    return f"{trials} of {trials} complete, {states['FAIL']} lost and repeated, none left running"


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "gclip", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _moments(generator: random.Random, trials: int, count: int) -> list[int]:
    """After how many runs there is a kill: never so late that it has nothing left to hit."""
    return sorted(generator.sample(range(1, max(count + 1, trials // 2)), count))


def _tries(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    """Again and again, as long as there is something that could happen."""
    deadline = time.monotonic() + PATIENCE
    while True:
        yield
        for process in processes:
            assert process.poll() is None, f"a process ended too early, with {process.returncode}"
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.02)


def _busy(url: str, name: str, processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """The places of the workers that have a trial in their hands, so that a kill costs something;
    waits until there is one."""
    for _ in _tries(*processes):
        with read_study_at(url, name) as study:
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            by = [trial.user_attrs.get("worker", "").rpartition(":")[2] for trial in running]
            if found := [i for i, each in enumerate(processes) if str(each.pid) in by]:
                return found
    return []


def _wait_for_runs(stores: Sequence[Path], count: int, *processes: subprocess.Popen[bytes]) -> None:
    for _ in _tries(*processes):
        if sum(1 for store in stores for _ in store.glob("*/result.json")) >= count:
            return


def _workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The process ids of a coordinator's workers; waits until there is one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for _ in _tries(process):
        if found := [int(each) for each in children.read_text().split()]:
            return found
    return []


def _said(killed: Counter[str]) -> str:
    return ", ".join(f"{kind} killed {count} times" for kind, count in killed.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("which", nargs="?", choices=("both", "sqlite", "postgres"), default="both")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        if given.which in ("both", "sqlite"):
            print(
                on_one_machine(
                    Path(folder),
                    trials=given.trials,
                    worker_kills=5,
                    coordinator_kills=2,
                    seed=seed,
                ),
                f"({time.monotonic() - began:.0f} s)",
                flush=True,
            )
        if given.which in ("both", "postgres"):
            began = time.monotonic()
            with postgres() as url:
                said = on_postgres(url, Path(folder), trials=given.trials, kills=3, seed=seed)
            print(said, f"({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
