"""What gclip takes from Optuna that Optuna does not promise: each part by name, and what it does.

Where one of these tests fails, a new Optuna has changed the part that it names, and
`gclip.tuning.optuna_internals` is what has to follow.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import QMCSampler, RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

import gclip.tuning
from gclip.tuning import optuna_internals
from gclip.tuning.optuna_internals import PARTS

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

UNIT = FloatDistribution(0.0, 1.0)


@pytest.fixture
def storage(tmp_path: Path) -> RDBStorage:
    # Heartbeats are read against the clock of the database, whose seconds are whole.
    return RDBStorage(f"sqlite:///{tmp_path}/x.db", heartbeat_interval=1, grace_period=1)


@pytest.mark.parametrize("part", PARTS)
def test_optuna_has_each_part(part: str) -> None:
    owner, *path = part.split(".")
    owners = {
        "Study": optuna.create_study(),
        "RDBStorage": RDBStorage,
        "QMCSampler": QMCSampler,
    }
    found = owners[owner]
    for name in path:
        assert hasattr(found, name), f"Optuna {optuna.__version__} has no {part}"
        found = getattr(found, name)


def test_no_other_module_of_tuning_reaches_into_optuna() -> None:
    """Private names are read on `self` alone, and in the one module that is for it."""
    folder = Path(inspect.getfile(gclip.tuning)).parent
    for path in folder.glob("*.py"):
        if path.stem == "optuna_internals":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
                continue
            if node.attr.startswith("__") or node.attr == "_replace":  # of a named tuple
                continue
            owner = ast.unparse(node.value)
            assert owner in ("self", "super()"), f"{path.name}: {owner}.{node.attr}"


def test_a_study_and_its_trials_are_found_in_their_storage(storage: RDBStorage) -> None:
    optuna.create_study(storage=storage, study_name="first").enqueue_trial({})
    study = optuna.create_study(storage=storage, study_name="second")
    for _ in range(2):
        study.enqueue_trial({})
    reads = optuna_internals.storage_of(study)
    assert reads.get_study_name_from_id(optuna_internals.study_id(study)) == "second"
    for trial in study.trials:
        found = reads.get_trial(optuna_internals.trial_id(study, trial.number))
        assert found.number == trial.number
    assert [t.number for t in optuna_internals.whole_study(study)] == [0, 1]


def test_a_trial_that_another_process_took_is_proposed_with_all_that_has_ended() -> None:
    study = optuna.create_study(sampler=Counting())
    study.enqueue_trial({})
    study.enqueue_trial({})
    reads = optuna_internals.storage_of(study)
    for number in (0, 1):
        reads.set_trial_state_values(optuna_internals.trial_id(study, number), TrialState.RUNNING)
    first = optuna_internals.trial_of(study, 0)
    assert first.suggest_float("x", 0.0, 1.0) == 0.0
    study.tell(0, 0.5)
    second = optuna_internals.trial_of(study, 1)
    assert second.number == 1
    assert second.suggest_float("x", 0.0, 1.0) == 1.0, (
        "the trials that had ended were not read anew"
    )


def test_a_trial_whose_heartbeat_is_old_is_stale(storage: RDBStorage) -> None:
    import time

    study = optuna.create_study(storage=storage)
    with pytest.warns(UserWarning, match="[Hh]eartbeat"):
        trial = study.ask()
    assert optuna_internals.stale_trial_ids(storage, study) == frozenset()
    identity = optuna_internals.trial_id(study, trial.number)
    storage.record_heartbeat(identity)
    until = time.monotonic() + 20
    while not optuna_internals.stale_trial_ids(storage, study) and time.monotonic() < until:
        time.sleep(0.1)
    assert optuna_internals.stale_trial_ids(storage, study) == {identity}


def test_a_placed_sampler_proposes_the_point_of_its_place() -> None:
    def point(sampler: QMCSampler) -> float:
        study = optuna.create_study(sampler=sampler)
        # Optuna asks for no relative point before a trial has ended.
        study.add_trial(optuna.create_trial(params={"x": 0.5}, distributions={"x": UNIT}, value=0))
        return study.ask({"x": UNIT}).params["x"]

    settings = {"qmc_type": "halton", "scramble": False, "seed": 0}
    found = [point(optuna_internals.PlacedQMCSampler(place, **settings)) for place in (1, 2, 3, 1)]
    assert found == [0.5, 0.25, 0.75, 0.5]  # the van der Corput sequence


class Counting(RandomSampler):
    """Proposes how many trials have ended, as a sampler sees it."""

    def sample_independent(self, study, trial, param_name, param_distribution):  # type: ignore[no-untyped-def]
        ended = study._get_trials(deepcopy=False, states=(TrialState.COMPLETE,), use_cache=True)
        return float(len(ended))
