"""One study on many machines, against a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import optuna
import pytest
from optuna import Trial

from gclip.cli import main
from gclip.errors import UsageError
from gclip.execution import Execution, InProcess
from gclip.execution.job_trainer import JobTrainer
from gclip.results import Store
from gclip.training import RunConfig
from gclip.tuning import distributed_study
from gclip.tuning.distributed_worker import DistributedWorker
from gclip.tuning.optuna_internals import stale_trial_ids
from gclip.tuning.postgres import connect, find, read_url
from gclip.tuning.trials import counted, status_of
from tests.tuning import kill_drill
from tests.tuning.servers import NoServer, postgres, read_study_at

TINY = ["--fraction", "0.1", "--epochs", "1", "--batch-size", "64"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    try:
        with postgres() as url:
            yield url
    except NoServer as reason:
        pytest.skip(str(reason))


def create(url: str, name: str, trials: int, *more: str) -> int:
    command = ["study", "create", "thresholds", "-s", "norm", "--storage", url, "--name", name]
    return main([*command, *TINY, "--trials", str(trials), *more])


def test_create_and_work(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(server, "one", 3, "--store", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "study one: 3 trials" in said
    assert f"gclip study work one --storage '{server}'" in unquote(said)
    assert create(server, "one", 3) == 0  # changes nothing
    work = ["study", "work", "one", "--storage", server, "--store", str(tmp_path / "runs")]
    assert main([*work, "--workers", "1", "--fleet", "2", "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out[out.index("{") :])
    assert (found["trials"], found["trained_here"], found["failed"]) == (3, 3, 0)
    with read_study_at(server, "one") as study:
        trials = counted(study)
        assert [trial.number for trial in trials] == [0, 1, 2]
        store = Store(tmp_path / "runs")
        for trial in trials:
            [key] = trial.user_attrs["keys"]
            assert store.load(key).accuracy == trial.values[0]
            assert trial.user_attrs["worker"]
            together = store.load(key).environment.get("fleet")
            assert together == (2 if trial.number < 2 else None)
    # A larger total adds what is missing; another node's store makes no difference.
    assert create(server, "one", 4) == 0
    other = [*work[:-1], str(tmp_path / "other"), "--workers", "1", "--json"]
    capsys.readouterr()
    assert main(other) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trials"], found["trained_here"]) == (4, 1)
    assert create(server, "one", 4, "--epochs", "2") == 2
    assert "epochs" in capsys.readouterr().err


def test_a_silent_workers_trial_is_made_again_three_times_at_most(
    server: str, tmp_path: Path
) -> None:
    assert create(server, "silent", 1, "--heartbeat", "1") == 0
    url = read_url(server)
    plan, trials, heartbeat = distributed_study.plan_at(url, "silent")
    assert (trials, heartbeat) == (1, 1)
    store = Store(tmp_path, create=True)
    with connect(url, grace=1) as storage:

        def worker() -> DistributedWorker:
            return DistributedWorker.of(plan, find(storage, url, "silent"), storage, store, 1)

        for attempt in (1, 2, 3):
            dead = worker()
            assert dead._claim_next() is not None  # and now it is silent
            _wait(storage, dead.study)
            alive = worker()
            alive.recover_lost()
            assert len(alive.trials.waiting()) == (1 if attempt < 3 else 0)
        [trial] = counted(worker().study)
        assert status_of(trial) == "failed"
        assert trial.user_attrs["message"] == "its worker was lost"
        # Whoever was taken for dead and is not changes nothing that has ended.
        with InProcess(store, Execution(workers=1, device="cpu")) as pool:
            worker().work(pool)
        assert len(counted(worker().study)) == 1


def test_a_trial_that_failed_is_made_again_by_the_same_command(
    server: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert create(server, "failing", 2, "--sampler", "random") == 0
    work = ["study", "work", "failing", "--storage", server, "--store", str(tmp_path), "--json"]
    trained = JobTrainer.train_one

    def out_of_memory(*asked: Any, **more: Any) -> Any:
        raise RuntimeError("out of memory")

    def counts() -> list[int]:
        out = capsys.readouterr().out
        found = json.loads(out[out.index("{") :])
        return [found[name] for name in ("trials", "trained_here", "failed")]

    monkeypatch.setattr(JobTrainer, "train_one", out_of_memory)
    main([*work, "--workers", "1"])
    assert counts() == [2, 2, 2]
    with read_study_at(server, "failing") as study:
        first = [trial.params for trial in counted(study)]
    monkeypatch.setattr(JobTrainer, "train_one", trained)
    assert main([*work, "--workers", "1"]) == 0
    assert counts() == [2, 2, 0]
    with read_study_at(server, "failing") as study:
        assert [trial.params for trial in counted(study)] == first
    assert main([*work, "--workers", "1"]) == 0
    assert counts() == [2, 0, 0]  # nothing is left to be made again


def test_workers_that_die_while_they_propose_change_no_proposal(
    server: str, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def nothing(trial: Trial) -> RunConfig:
        raise Killed

    def half(trial: Trial) -> RunConfig:
        trial.suggest_float("lr", 0.005, 0.75, log=True)
        raise Killed

    random = ("--sampler", "random", "--heartbeat", "1")
    assert create(server, "proposing", 3, *random) == 0
    url = read_url(server)
    plan, _, _ = distributed_study.plan_at(url, "proposing")
    store = Store(tmp_path, create=True)
    with connect(url, grace=1) as storage:

        def worker() -> DistributedWorker:
            return DistributedWorker.of(plan, find(storage, url, "proposing"), storage, store, 1)

        for propose in (nothing, half, nothing, nothing):  # more often than it may be tried
            dead = worker()
            dead.propose = propose
            with pytest.raises(Killed):
                dead._claim_next()
            _wait(storage, dead.study)
            worker().recover_lost()
        assert create(server, "proposing", 5, *random) == 0
        with InProcess(store, Execution(workers=1, device="cpu")) as pool:
            worker().work(pool)
        found = counted(worker().study)
    assert [status_of(trial) for trial in found] == ["finished"] * 5
    untouched = optuna.create_study()
    for place in range(5):
        untouched.sampler = plan.make_sampler(place)
        plan.propose(untouched.ask())
    assert [trial.params for trial in found] == [trial.params for trial in untouched.trials]


def _wait(storage: object, study: int) -> None:
    import time

    until = time.monotonic() + 20
    while not stale_trial_ids(storage, study):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.drill
def test_workers_that_are_killed(server: str, tmp_path: Path) -> None:
    said = kill_drill.on_postgres(server, tmp_path, trials=8, kills=1, seed=0)
    assert "8 of 8 complete" in said


def test_what_a_server_cannot_do_is_said(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(server, "thresholds-a", 1) == 0
    capsys.readouterr()
    assert main(["study", "work", "threshold-a", "--storage", server]) == 2
    assert "did you mean 'thresholds-a'" in " ".join(capsys.readouterr().err.split())
    missing = server.replace("/postgres?", "/nothing?")
    assert main(["study", "work", "x", "--storage", missing]) == 2
    assert 'database "nothing" does not exist' in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("sqlite:///runs.db", "SQLite is for one process"),
        ("postgre://me@db/x", "did you mean 'postgresql'"),
        ("runs.db", "a storage is a URL such as postgresql://user@host/database"),
        ("postgresql+psycopq://me@db/x", "did you mean 'psycopg'"),
    ],
)
def test_storages_typed_wrong(
    storage: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["study", "work", "x", "--storage", storage]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []  # no empty database


def test_passwords_are_not_shown() -> None:
    with pytest.raises(UsageError) as error:
        read_url("postgresql://me:secret@host:port/x")
    assert "secret" not in str(error.value)
