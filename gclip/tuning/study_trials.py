"""The trials of a study as its coordinator reads and writes them: by number, whoever began them.

What is written goes through the storage: a trial that an earlier process asked for has no
`optuna.Trial` in this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from gclip.tuning import optuna_internals
from gclip.tuning.proposals import replaced_by

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

ENDED = "the process that ran it ended"
"""Why a trial has failed whose coordinator died."""
MAX_ATTEMPTS = 3
"""A trial whose coordinator died this often while it trained has failed: perhaps it killed it."""


class StudyTrials:
    """Reads and writes the trials of one study."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._storage = optuna_internals.storage_of(study)

    def select(self, *states: TrialState) -> list[FrozenTrial]:
        """Those in one of these states, or all of them, by number."""
        return self._study.get_trials(deepcopy=False, states=states or None)

    def running(self) -> list[FrozenTrial]:
        """Those that somebody has taken, or had when the process ended."""
        return self.select(TrialState.RUNNING)

    def waiting(self) -> list[FrozenTrial]:
        """Those that wait to be taken."""
        return self.select(TrialState.WAITING)

    def failed(self) -> list[FrozenTrial]:
        """Those one of whose runs failed, and that nobody repeats yet. Not those that were given
        up, as they perhaps end whoever trains them, nor those that were never proposed."""
        replaced = {replaced_by(trial) for trial in self.select()}
        return [
            trial
            for trial in self.select(TrialState.FAIL)
            if _was_proposed(trial)
            and trial.number not in replaced
            and trial.user_attrs.get("message", ENDED) != ENDED
        ]

    def get(self, number: int) -> FrozenTrial:
        """A trial as it is now."""
        return self._storage.get_trial(self.id_of(number))

    def id_of(self, number: int) -> int:
        """A trial's number in the storage."""
        return optuna_internals.trial_id(self._study, number)

    def claim(self, number: int) -> bool:
        """Take a waiting trial; False if another process has it."""
        try:
            return bool(self.set_state(number, TrialState.RUNNING))
        except UpdateFinishedTrialError:
            return False

    def set_state(self, number: int, state: TrialState) -> bool:
        """Write a trial's state; False for one that runs already."""
        return self._storage.set_trial_state_values(self.id_of(number), state)

    def set_attrs(self, number: int, **attributes: Any) -> None:
        """Write user attributes."""
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(self.id_of(number), name, value)

    def report(self, number: int, values: Mapping[int, float]) -> None:
        """Write intermediate values by step, as far as they are not there."""
        known = self.get(number).intermediate_values
        for step, value in values.items():
            if step not in known:
                self._storage.set_trial_intermediate_value(self.id_of(number), step, value)

    def enqueue_again(self, trial: FrozenTrial, *, died: bool, saved: int = 0) -> None:
        """Queue what was suggested for a trial that will not end, for another attempt.

        An attempt is counted where a process died while the trial trained, and came no further
        than the one before: else it cannot have been the trial's fault. What was not suggested yet
        will be proposed as for the same place.

        Args:
            trial: that is replaced.
            died: its process did; else somebody stopped it.
            saved: the steps of its run that are in a checkpoint.
        """
        given = trial.system_attrs.get("fixed_params", {})
        attempt = attempt_of(trial) + (died and _was_proposed(trial) and not went_on(trial, saved))
        more: dict[str, Any] = {"attempt": attempt, "replaces": trial.number}
        if saved:
            more["saved_steps"] = saved
        self._study.enqueue_trial({**given, **trial.params}, user_attrs=more)


def attempt_of(trial: FrozenTrial) -> int:
    """Which attempt at its proposal a trial is, from 1."""
    return int(trial.user_attrs.get("attempt", 1))


def went_on(trial: FrozenTrial, saved: int) -> bool:
    """Whether a trial came further than the attempt before it, by its checkpoints."""
    return saved > int(trial.user_attrs.get("saved_steps", 0))


def may_be_repeated(trial: FrozenTrial, saved: int = 0) -> bool:
    """Whether a trial whose process died may be tried once more.

    Args:
        trial: that was under way.
        saved: the steps of its run that are in a checkpoint.
    """
    if went_on(trial, saved):
        return True
    return attempt_of(trial) < MAX_ATTEMPTS or not _was_proposed(trial)


def _was_proposed(trial: FrozenTrial) -> bool:
    return "keys" in trial.user_attrs  # the last that is written before it trains
