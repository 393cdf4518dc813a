"""Which proposal of its study is a trial?

The proposals of a study are numbered by their place: 0, 1, 2 … What a sampler draws for one follows
from its place (and, where the sampler learns, from the trials that have ended), never from Optuna's
trial numbers: those also count the trials that repeat a lost one, and so an interruption would
shift all that follows. A trial that repeats a lost one has the place of the trial that it repeats.

A place is written in the same transaction that makes the trial, so a killed process leaves a trial
with its place, or none at all. Trials of versions that wrote no place have their number for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

PLACE = "place"
"""The user attribute that has it."""


def replaced_by(trial: FrozenTrial) -> int | None:
    """The number of the lost trial that `trial` is another attempt at, or None."""
    # The second is what Optuna's own retry after a missed heartbeat writes.
    number = trial.user_attrs.get("replaces", trial.system_attrs.get("failed_trial"))
    return None if number is None else int(number)


def originals(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that repeat no other: as many as there are places."""
    return [trial for trial in trials if replaced_by(trial) is None]


def original_of(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> FrozenTrial:
    """The first attempt at what `trial` attempts: itself, where it repeats no other.

    Args:
        trials: all of the study, by number.
    """
    replaced = replaced_by(trial)
    while replaced is not None:
        # A successor is always younger; anything else would lead round in a circle.
        if not 0 <= replaced < trial.number:
            raise ValueError(f"trial {trial.number} says that it repeats trial {replaced}")
        trial = trials[replaced]
        replaced = replaced_by(trial)
    return trial


def place_of(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """The place of `trial` among `trials`, all of its study by number."""
    first = original_of(trials, trial)
    return int(first.user_attrs.get(PLACE, first.number))


def free_places(trials: Sequence[FrozenTrial]) -> Iterator[int]:
    """The places that none of `trials` has, from the first on, without end."""
    taken = {place_of(trials, each) for each in originals(trials)}
    return (place for place in itertools.count() if place not in taken)


def add_trial(study: Study, place: int) -> None:
    """Queue the trial of `place`, nothing of which is proposed yet."""
    study.enqueue_trial({}, user_attrs={PLACE: place})
