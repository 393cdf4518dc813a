"""Whenever a study is interrupted, and however often, it proposes what it would have proposed.

A study of a pretended pool is stopped at every single call that writes into its storage, by a kill
(nothing is cleaned up) or by Ctrl-C (the coordinator's last words are spoken); and a real one in a
process of its own.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from gclip.execution.job import Job
from gclip.results import Store
from gclip.studies import thresholds
from gclip.training import RunConfig, RunResult
from gclip.tuning.plan import Plan
from gclip.tuning.proposals import place_of, replaced_by
from gclip.tuning.sqlite import begin, read_study, study_file
from gclip.tuning.study import Request
from gclip.tuning.trials import counted
from tests.tuning.pools import PretendedPool

TOTAL = 5
WRITES = (
    *("create_new_trial", "set_trial_param", "set_trial_state_values", "set_trial_user_attr"),
    *("set_trial_system_attr", "set_trial_intermediate_value", "set_study_system_attr"),
)


class Killed(BaseException):
    """As kill -9: nothing that stands below gets a word in."""


class Mortal(InMemoryStorage):
    """A storage whose process ends just before one of its writes, counted from `arm` on."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None
        self.death: type[BaseException] = Killed

    def arm(self, at: int | None, death: type[BaseException] = Killed) -> None:
        self.left, self.death = at, death

    def written(self) -> None:
        if self.left == 0:
            self.left = None  # once
            raise self.death
        if self.left is not None:
            self.left -= 1


def _mortal(name: str) -> Any:
    own = getattr(InMemoryStorage, name)

    @functools.wraps(own)
    def call(self: Mortal, *args: Any, **more: Any) -> Any:
        self.written()
        return own(self, *args, **more)

    return call


for _name in WRITES:
    setattr(Mortal, _name, _mortal(_name))


class Memory:
    """A store of results that outlives its process."""

    path = Path("nowhere")

    def __init__(self) -> None:
        self.results: dict[str, RunResult] = {}

    def has(self, key: str) -> bool:
        return key in self.results

    def load(self, key: str) -> RunResult:
        return self.results[key]


class Pretended(PretendedPool):
    """The lower its learning rate, the better a run."""

    def __init__(self, store: Memory) -> None:
        super().__init__(cast("Store", store))
        self.results = store.results

    def end(self, job: Job) -> RunResult:
        accuracy = 1 / (1 + job.config.lr)
        result = RunResult(config=job.config, status="finished", accuracy=accuracy, seconds=1.0)
        self.results[job.config.key] = result
        return result


class Interrupted:
    """A study, with the store beside it, that any number of processes have worked on."""

    def __init__(self, sampler: str, strategy: str = "norm") -> None:
        self.storage, self.store = Mortal(), Memory()
        request = Request(
            base=RunConfig(epochs=1),
            store=cast("Store", self.store),
            sampler=sampler,
            points=3 if sampler == "grid" else None,
        )
        self.plan = thresholds.plan_of(request, strategy)
        begin(self.storage, "x", self.plan.settings)

    @property
    def study(self) -> optuna.Study:
        return optuna.load_study(study_name="x", storage=self.storage)

    def work(self, total: int = TOTAL) -> bool:
        """A process that goes on; whether it came to the end."""
        store = cast("Store", self.store)
        try:
            self.plan.coordinator(self.study, store).run(Pretended(self.store), total)
        except (Killed, KeyboardInterrupt):
            return False
        return True

    def proposals(self) -> list[dict[str, Any]]:
        """What the trials that count were of, when all has ended."""
        everything = self.study.get_trials(deepcopy=False)
        assert {trial.state for trial in everything} <= {TrialState.COMPLETE, TrialState.FAIL}
        return [trial.params for trial in counted(self.study)]


@functools.cache
def finished(sampler: str, strategy: str = "norm") -> list[dict[str, Any]]:
    """The proposals of a study that nothing happened to."""
    study = Interrupted(sampler, strategy)
    assert study.work()
    return study.proposals()


DEATHS = (Killed, KeyboardInterrupt)


def stopped_everywhere(sampler: str) -> Iterator[tuple[Interrupted, int]]:
    """One study for each way and each moment to be stopped; stopped, and not gone on with."""
    for death in DEATHS:
        for at in itertools.count():
            study = Interrupted(sampler)
            study.storage.arm(at, death)
            if study.work():
                assert at > 8 * TOTAL, "there were fewer moments than there should be"
                break
            yield study, at


@pytest.mark.parametrize("sampler", ["random", "qmc", "grid"])
def test_one_interruption_anywhere_changes_no_proposal(sampler: str) -> None:
    whole = finished(sampler)
    assert len({tuple(params.items()) for params in whole}) == TOTAL
    for study, _ in stopped_everywhere(sampler):
        assert study.work()
        assert study.proposals() == whole


@pytest.mark.parametrize("sampler", ["random", "qmc", "grid"])
def test_many_interruptions_change_no_proposal(sampler: str) -> None:
    whole = finished(sampler)
    generator = random.Random(0)
    for _ in range(40):
        study = Interrupted(sampler)
        for _ in range(generator.randrange(2, 7)):
            study.storage.arm(generator.randrange(25), generator.choice(DEATHS))
            study.work(generator.randrange(1, TOTAL + 1))
        study.storage.arm(None)
        assert study.work()
        assert study.proposals() == whole


def test_strategies_try_the_same_learning_rates_whatever_happens_to_each() -> None:
    whole = [params["lr"] for params in finished("random")]
    assert len(set(whole)) == TOTAL
    generator = random.Random(1)
    for strategy in ("none", "norm", "agc", "zclip"):
        study = Interrupted("random", strategy)
        for _ in range(3):
            study.storage.arm(generator.randrange(40), generator.choice(DEATHS))
            study.work()
        study.storage.arm(None)
        assert study.work()
        assert [params["lr"] for params in study.proposals()] == whole


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_whoever_learns_keeps_what_was_suggested_and_the_total(sampler: str) -> None:
    moments = list(stopped_everywhere(sampler))
    for study, at in moments[:: 1 if sampler == "tpe" else 7]:
        assert study.work()
        found = study.proposals()
        assert len(found) == TOTAL, f"stopped at {at}"
        assert len({tuple(params.items()) for params in found}) == TOTAL
        # Nothing is learnt from so few trials yet: they are drawn by chance, trial by trial.
        assert found == finished(sampler)
        everything = study.study.get_trials(deepcopy=False)
        for trial in everything:
            replaced = replaced_by(trial)
            if replaced is not None:
                assert everything[replaced].params.items() <= trial.params.items()


def test_a_sampler_that_has_learnt_keeps_a_proposal_that_was_half_made() -> None:
    total = 12  # the first ten are drawn by chance
    lost: list[optuna.trial.FrozenTrial] = []
    for at in itertools.count():
        study = Interrupted("tpe")
        assert study.work(total - 1)
        study.storage.arm(at)
        assert not study.work(total)
        lost = study.study.get_trials(states=(TrialState.RUNNING,))
        if lost and len(lost[0].params) == 1:
            break
    assert list(lost[0].params) == ["lr"]
    assert study.work(total)
    assert len(study.proposals()) == total
    assert lost[0].params.items() <= study.proposals()[-1].items()


def test_a_trial_that_was_never_proposed_costs_no_attempt() -> None:
    whole = finished("random")
    study = Interrupted("random")
    for _ in range(5):  # dies each time as soon as it has taken a trial
        for at in itertools.count():
            study.storage.arm(at)
            assert not study.work()
            running = study.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if running and not running[-1].params:
                break
    study.storage.arm(None)
    assert study.work()
    assert study.proposals() == whole
    assert all(trial.state is TrialState.COMPLETE for trial in counted(study.study))


def test_more_trials_later_are_those_of_a_larger_study() -> None:
    study = Interrupted("random")
    study.storage.arm(12, KeyboardInterrupt)
    assert not study.work(3)
    study.storage.arm(None)
    assert study.work(3)
    assert study.proposals() == finished("random")[:3]
    study.storage.arm(9)
    assert not study.work(TOTAL)
    assert study.work(TOTAL)
    assert study.proposals() == finished("random")
    everything = study.study.get_trials(deepcopy=False)
    assert [place_of(everything, each) for each in counted(study.study)] == list(range(TOTAL))


def test_a_study_of_an_earlier_version_goes_on_with_what_it_has_not_drawn() -> None:
    # Trials without a place, drawn from their number; one was interrupted and repeated, so that
    # number 2 repeats number 1, and what number 2 would have drawn is missing.
    whole = finished("random")
    study = Interrupted("random")
    space = study.plan.space.distributions
    for params, state, more in (
        (whole[0], TrialState.COMPLETE, {}),
        (whole[1], TrialState.FAIL, {}),
        (whole[1], TrialState.COMPLETE, {"replaces": 1, "attempt": 1}),
        (whole[3], TrialState.COMPLETE, {}),
    ):
        value = 0.5 if state is TrialState.COMPLETE else None
        study.study.add_trial(
            optuna.create_trial(
                params=params, distributions=space, value=value, state=state, user_attrs=more
            )
        )
    assert study.work()
    assert study.proposals() == whole


TINY = ("--fraction", "0.1", "--epochs", "1", "--batch-size", "64", "--device", "cpu")


@pytest.mark.drill
def test_processes_that_are_killed_and_stopped(tmp_path: Path) -> None:
    """The same in processes of their own: SIGKILL and SIGINT at moments of chance."""
    store, name = tmp_path / "runs", "thresholds-norm-digits"

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "gclip", "study", "run", "thresholds", "-s", "norm", *TINY),
                *("--trials", "4", "--sampler", "random", "--workers", "1", "--fleet", "off"),
                *("--store", str(store)),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ended() -> int:
        return len(list(store.glob("*/result.json")))

    generator = random.Random(0)
    for kind in (signal.SIGKILL, signal.SIGINT):
        process, there = start(), ended()
        deadline = time.monotonic() + 300
        while ended() == there and process.poll() is None:
            assert time.monotonic() < deadline, "nothing happens"
            time.sleep(0.02)
        time.sleep(generator.uniform(0.0, 0.3))
        process.send_signal(kind)
        process.wait(timeout=300)
    assert start().wait(timeout=300) == 0
    with read_study(study_file(store, name)) as study:
        trials = counted(study)
        plan = Plan.of(name, study.user_attrs["settings"])
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    untouched = optuna.create_study(direction="maximize")
    for place in range(4):
        untouched.sampler = plan.make_sampler(place)
        plan.propose(untouched.ask())
    assert [trial.params for trial in trials] == [trial.params for trial in untouched.trials]
