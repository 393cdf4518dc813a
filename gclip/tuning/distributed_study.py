"""A study for many machines: created once, with all its trials, and found by those who work on it.

The study's budget is a row of waiting trials, so it is a total however many workers there are and
whichever of them die.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gclip.errors import UsageError
from gclip.tuning.plan import Plan
from gclip.tuning.postgres import connect, find, shown, study_lock
from gclip.tuning.proposals import add_trial, free_places, originals
from gclip.tuning.sqlite import begin, check_name

if TYPE_CHECKING:
    from sqlalchemy import URL

    from gclip.training import Dataset, ProblemData

HEARTBEAT = 15
"""Seconds between two signs of life, unless a study was created with others."""

_BATCH = 100


@dataclass(frozen=True, kw_only=True)
class Created:
    """A study as `create` left it: all its trials to be, and how many of them are new."""

    name: str
    trials: int
    added: int


def create(url: URL, plan: Plan, trials: int, heartbeat: int | None = None) -> Created:
    """Begin the study of `plan`, or give it more trials; the same again changes nothing.

    Args:
        trials: in all, those that have ended included.
        heartbeat: seconds between a worker's signs of life; None: as before, or `HEARTBEAT`.

    Raises:
        UsageError: the storage cannot be used, or the study was begun with other settings.
    """
    check_name(plan.name)
    plan.check_trials(trials)
    if heartbeat is not None and heartbeat < 1:
        raise UsageError(f"heartbeat must be at least 1 second, but got {heartbeat}")
    added = 0
    with connect(url, create=True) as storage:
        while True:
            with study_lock(storage, plan.name):  # in batches, as a lock is not held for long
                study = begin(storage, plan.name, plan.settings, plan.sought, plan.metric)
                if heartbeat is not None or "heartbeat" not in study.user_attrs:
                    study.set_user_attr("heartbeat", heartbeat or HEARTBEAT)
                existing = study.get_trials(deepcopy=False)
                count = len(originals(existing))
                batch = max(0, min(_BATCH, trials - count))
                for place in itertools.islice(free_places(existing), batch):
                    add_trial(study, place)
                added, count = added + batch, count + batch
            if count >= trials:
                return Created(name=plan.name, trials=count, added=added)


def plan_at(url: URL, name: str) -> tuple[Plan, int, int]:
    """The plan of a study in a storage, how many trials it has, and its heartbeat.

    Raises:
        UsageError: there is no such study, or this machine would train something else.
    """
    with connect(url) as storage:
        study = find(storage, url, name)
        settings = study.user_attrs.get("settings")
        if not isinstance(settings, dict) or "heartbeat" not in study.user_attrs:
            raise UsageError(
                f"the study {name!r} in {shown(url)} was not made by gclip study create"
            )
        count = len(originals(study.get_trials(deepcopy=False)))
        heartbeat = int(study.user_attrs["heartbeat"])
    plan = Plan.of(name, settings)
    _check_code(plan)
    # Its trials were made by rules (of selection, of stepping) that are gone.
    if plan.settings != settings or plan.base != plan.base.replace(selection=None, stepping=None):
        raise UsageError(
            f"the study {name!r} was created by another version of gclip; "
            "install the same one on every machine"
        )
    return plan, count, heartbeat


def check_data(plan: Plan, dataset: Dataset | ProblemData) -> None:
    """Raises `UsageError` if a node's data is not that that the study was created with."""
    if dataset.identity != plan.base.data:
        raise UsageError(
            f"the data here ({dataset.identity or 'embedded'}) is not what the study "
            f"{plan.name!r} was created with ({plan.base.data or 'embedded'}); see --data"
        )


def _check_code(plan: Plan) -> None:
    from gclip.core.digest import code_digest

    strategy = plan.space.strategy
    if plan.base.code and code_digest(strategy) != plan.base.code:
        raise UsageError(
            f"the code of {strategy.name} here is not the one that the study {plan.name!r} was "
            "created with; install the same gclip and plugins on every machine"
        )
