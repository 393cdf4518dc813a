"""The coordinator, with a pool that only pretends to train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from gclip.errors import UsageError
from gclip.results import Store
from gclip.running import Event, Job, Pool
from gclip.running.coordinator import (
    MAX_ATTEMPTS,
    Coordinator,
    counted,
    open_study,
    read_study,
    study_file,
    summary,
)
from gclip.studies import thresholds
from gclip.training import RunConfig, RunResult

BASE = RunConfig(strategy="norm", split="validation", seed=1000)


class Pretended(Pool):
    """Two runs at a time, ended in the order of submission."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.waiting: list[Job] = []
        self.status: dict[int, str] = {}
        self.interrupt_at: int | None = None

    @property
    def free(self) -> int:
        return 2 - len(self.waiting)

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def wait(self) -> list[tuple[Job, RunResult]]:
        job = self.waiting.pop(0)
        if job.index == self.interrupt_at:
            raise KeyboardInterrupt
        status: Any = self.status.get(job.index, "finished")
        stopped = 7 if status == "diverged" else None
        accuracy = 0.1 if status == "diverged" else 1 - abs(job.config.lr - 0.3)
        result = RunResult(config=job.config, status=status, accuracy=accuracy, stopped_at=stopped)
        if status == "failed":
            result = RunResult.failed(job.config, "no luck")
        self.store.save(result)
        return [(job, result)]


def propose(trial: optuna.Trial) -> RunConfig:
    return BASE.replace(lr=trial.suggest_float("lr", 0.01, 1.0, log=True))


@contextmanager
def coordinated(path: Path, **more: Any) -> Iterator[tuple[Coordinator, Pretended]]:
    store = Store(path, create=True)
    with open_study(path, "trial-run", {"setting": 1}) as study:
        yield (
            Coordinator(
                study=study,
                store=store,
                propose=propose,
                sampler=lambda seed: thresholds._sampler("tpe", seed),
                **more,
            ),
            Pretended(store),
        )


def lrs(study: optuna.Study) -> list[float]:
    return [trial.params["lr"] for trial in counted(study)]


def test_a_total_of_trials_over_several_commands(tmp_path: Path) -> None:
    events: list[Event] = []
    for total in (3, 3, 8):
        with coordinated(tmp_path, listener=events.append) as (coordinator, pool):
            coordinator.run(pool, total)
            assert len(coordinator.study.trials) == total
            assert all(t.state == TrialState.COMPLETE for t in coordinator.study.trials)
    with read_study(study_file(tmp_path, "trial-run")) as study:
        assert len(set(lrs(study))) == 8, "a resumed study must not repeat its first proposals"
        assert study.best_value == max(1 - abs(lr - 0.3) for lr in lrs(study))


def test_diverged_trials_count_and_failed_ones_fail(tmp_path: Path) -> None:
    with coordinated(tmp_path) as (coordinator, pool):
        pool.status = {1: "diverged", 2: "failed"}
        coordinator.run(pool, 4)
        trials = coordinator.study.trials
        assert [trial.state.name for trial in trials] == [
            *("COMPLETE", "COMPLETE", "FAIL", "COMPLETE")
        ]
        assert trials[1].value == 0.1
        assert trials[1].user_attrs["status"] == "diverged"
        assert trials[1].user_attrs["stopped_at"] == 7
        assert trials[2].user_attrs["message"] == "no luck"
    found = summary(study_file(tmp_path, "trial-run"))
    assert (found["trials"], found["failed"]) == (4, 1)


def test_trials_that_a_killed_coordinator_left_are_told_or_asked_again(tmp_path: Path) -> None:
    with coordinated(tmp_path) as (coordinator, pool):
        # As kill -9 leaves them: one whose worker had stored the result, one without,
        # and one that had not even been proposed.
        done, lost = coordinator._ask(), coordinator._ask()
        assert done is not None
        assert lost is not None
        pool.submit(done)
        pool.wait()
        coordinator.study.ask()
    with coordinated(tmp_path) as (coordinator, pool):
        coordinator.run(pool, 4)
        trials = coordinator.study.trials
        assert trials[0].state == TrialState.COMPLETE
        assert trials[0].value == 1 - abs(done.config.lr - 0.3)
        assert [trial.state for trial in trials[1:3]] == [TrialState.FAIL] * 2
        again = next(t for t in trials if t.user_attrs.get("replaces") == 1)
        assert again.params == trials[1].params
        assert again.user_attrs["attempt"] == 2
        assert again.state == TrialState.COMPLETE
        assert len(counted(coordinator.study)) == 4


def test_a_trial_that_kills_its_coordinator_is_not_asked_for_ever(tmp_path: Path) -> None:
    for _ in range(MAX_ATTEMPTS):
        with coordinated(tmp_path) as (coordinator, _pool):
            coordinator.recover()
            assert coordinator._ask() is not None
    with coordinated(tmp_path) as (coordinator, _pool):
        coordinator.recover()
        assert not coordinator.study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
        assert len(counted(coordinator.study)) == 1


def test_ctrl_c_puts_trials_back_at_no_cost(tmp_path: Path) -> None:
    with coordinated(tmp_path) as (coordinator, pool):
        pool.interrupt_at = 2
        with pytest.raises(KeyboardInterrupt):
            coordinator.run(pool, 6)
        given_up = [t.params for t in coordinator.study.trials if t.state == TrialState.FAIL]
        assert len(given_up) == 2
    with coordinated(tmp_path) as (coordinator, pool):
        coordinator.run(pool, 6)
        ended = counted(coordinator.study)
        assert len(ended) == 6
        assert all(trial.params in [t.params for t in ended] for trial in ended)
        replaced = [t for t in ended if "replaces" in t.user_attrs]
        assert [t.params for t in replaced] == given_up
        assert {t.user_attrs["attempt"] for t in replaced} == {1}


def test_a_study_belongs_to_one_process_and_one_setting(tmp_path: Path) -> None:
    def begin(setting: int) -> None:
        with open_study(tmp_path, "trial-run", {"setting": setting}):
            pass

    with coordinated(tmp_path), pytest.raises(UsageError, match="run by another process"):
        begin(1)
    with pytest.raises(UsageError, match="begun with setting 1, not setting 2"):
        begin(2)


def test_looking_at_a_study_that_is_not_there_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no study"), read_study(tmp_path / "none.db"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_study_file_is_one_sentence(tmp_path: Path) -> None:
    file = study_file(tmp_path, "trial-run")
    file.parent.mkdir()
    file.write_bytes(b"this is no database" * 100)
    with pytest.raises(UsageError, match="cannot be used"), open_study(tmp_path, "trial-run", {}):
        pass
