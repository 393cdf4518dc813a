"""Every part of Optuna that is not public and that gclip leans on, and nothing else.

Optuna's public interface asks and tells within one process: a trial that another process began
has no `optuna.Trial` there, a waiting trial cannot be taken by its number, and who is silent is
found by `Study.optimize` alone. What that takes is here; `PARTS` names it for the test that holds
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.samplers import QMCSampler

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.trial import FrozenTrial

PARTS = (
    "Study._storage",
    "Study._study_id",
    "Study._thread_local.cached_all_trials",
    "RDBStorage._get_stale_trial_ids",
    "QMCSampler._find_sample_id",
)
"""What `tests/tuning/test_optuna_internals.py` looks for in the Optuna that is installed."""


def storage_of(study: Study) -> BaseStorage:
    """The storage that a study was loaded from."""
    return study._storage


def study_id(study: Study) -> int:
    """A study's number in its storage."""
    return study._study_id


def trial_id(study: Study, number: int) -> int:
    """A trial's number in its storage."""
    return storage_of(study).get_trial_id_from_study_id_trial_number(study_id(study), number)


def whole_study(study: Study) -> list[FrozenTrial]:
    """All trials by number, where ``study.get_trials`` may show a part of them: to a sampler that a
    pruner calls."""
    return storage_of(study).get_all_trials(study_id(study), deepcopy=False)


def trial_of(study: Study, number: int) -> Trial:
    """A running trial, to be proposed in the light of all that has ended by now."""
    from optuna import Trial

    study._thread_local.cached_all_trials = None
    return Trial(study, trial_id(study, number))


def stale_trial_ids(storage: RDBStorage, study: Study) -> frozenset[int]:
    """The ids of running trials whose heartbeat is older than the storage's grace period."""
    return frozenset(storage._get_stale_trial_ids(study_id(study)))


class PlacedQMCSampler(QMCSampler):
    """A quasi-random sampler that proposes one given point of its sequence.

    Optuna's own counts in the study how often it was asked: a trial that is lost, or repeated,
    costs the sequence a point.
    """

    def __init__(self, place: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._place = place

    def _find_sample_id(self, *_: Any) -> int:
        return self._place
