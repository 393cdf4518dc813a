"""How large should the limit be? Tunes a strategy's tunable fields, the learning rate with them.

The search space is read from the strategy's class (`gclip.tuning.space`), so a new strategy can be
tuned the moment it is registered. Trials are scored on validation images with seeds that no
comparison uses by default: test images and reporting seeds stay unseen. Several strategies are one
study each, with the same number of trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gclip.errors import UsageError
from gclip.execution.run_all import open_pool
from gclip.studies._runs import check_once
from gclip.studies._thresholds import as_json, columns, notes, row
from gclip.text.names import in_a_name
from gclip.tuning.fleet_size import fleet_size
from gclip.tuning.outcome import Outcome, outcome_of
from gclip.tuning.plan import Plan
from gclip.tuning.space import (
    LR,
    Space,
    check_overrides,
    fitting,
    lr_range_around,
    single,
    space_of,
)
from gclip.tuning.sqlite import check_name, open_study
from gclip.tuning.study import Answer, Request
from gclip.tuning.trials import counted

if TYPE_CHECKING:
    from gclip import Strategy
    from gclip.execution.pool import TrainingPool
    from gclip.training import RunConfig

USES = (
    *("trials", "lr_range", "fixed_lr", "space", "sampler", "pruner"),
    *("seeds_per_trial", "objectives", "points"),
)
TRIALS = 20


def run(request: Request) -> Answer:
    """Tune each strategy of `request`; the same again resumes and ends at the same totals.

    Raises:
        UsageError: before any trial, for anything that can be known to be wrong.
    """
    study_plans = plans(request)
    trials = trials_of(request, study_plans)
    # One pool for all: a worker takes seconds to begin, and would once for each strategy.
    with open_pool(request.store, request.execution.resolved()) as pool:
        outcomes = [tune(request, plan, trials, pool) for plan in study_plans]
    return Answer(
        rows=[row(outcome) for outcome in outcomes],
        columns=columns(outcomes),
        notes=notes(outcomes, request),
        more={"studies": [as_json(outcome) for outcome in outcomes]},
        searches=[outcome.name for outcome in outcomes],
        ok=all(outcome.best is not None for outcome in outcomes),
    )


def run_count(request: Request) -> int:
    """How many runs there will be at most, for a display of how far they are."""
    study_plans = plans(request)
    return trials_of(request, study_plans) * sum(plan.seeds_per_trial for plan in study_plans)


def plans(request: Request) -> list[Plan]:
    """One plan for each strategy of `request`.

    Raises:
        UsageError: no strategy, one named twice, or anything wrong with one of the plans.
    """
    if not request.strategies:
        raise UsageError(
            "the study thresholds needs to know what to tune: --strategy agc, again for more"
        )
    spelled = [str(single(text)) for text in request.strategies]
    check_once(spelled)
    check_overrides(spelled, request.space)
    return [
        plan_of(request, text, name=_called(request.name, text, alone=len(spelled) == 1))
        for text in spelled
    ]


def plan_of(request: Request, strategy: str, *, name: str | None = None) -> Plan:
    """The plan that `request` makes for one strategy.

    What its space says about other strategies' fields is left to them; `check_overrides` finds
    what is about none.

    Args:
        name: of the study; after the strategy and the task by default.
    """
    base = request.base
    name = default_name(single(strategy), base) if name is None else name
    check_name(name)
    if request.fixed_lr and request.lr_range is not None:
        raise UsageError("the learning rate is either fixed or searched in a range, not both")
    if request.fixed_lr and LR in (request.space or {}):
        raise UsageError("the learning rate is either fixed or in the space, not both")
    around = None if request.fixed_lr else request.lr_range or lr_range_around(base.lr)
    space = space_of(strategy, lr_range=around, overrides=fitting(strategy, request.space))
    return Plan(
        name=name,
        base=base,
        space=_lr_first(space),
        **request.search,
    )


def _lr_first(space: Space) -> Space:
    """A random trial's first number is its learning rate: so all strategies try the same ones.

    Otherwise ``none``, with nothing else to draw, would try others, and whose were the luckier
    would look like a difference between strategies.
    """
    rest = dict(space.dimensions)
    first = {LR: rest.pop(LR)} if LR in rest else {}
    return dataclasses.replace(space, dimensions={**first, **rest})


def trials_of(request: Request, study_plans: Sequence[Plan]) -> int:
    """How many trials each study gets: the same for all; a whole grid unless told otherwise."""
    trials = request.trials
    if trials is None:
        sizes = {
            plan.space.strategy.name: plan.most for plan in study_plans if plan.most is not None
        }
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise UsageError(
                f"the grids differ in size ({told}), and every strategy is to have the same "
                "number of trials: give --trials"
            )
        trials = next(iter(sizes.values()), None) or TRIALS
    for plan in study_plans:
        plan.check_trials(trials)
    return trials


def tune(request: Request, plan: Plan, trials: int, pool: TrainingPool) -> Outcome:
    """Make the trials of one plan, as far as they were not made, in the request's store."""
    plan.check_trials(trials)
    execution = request.execution.resolved()
    with open_study(
        request.store.path, plan.name, plan.settings, plan.sought, plan.metric
    ) as study:
        waiting = trials - len(counted(study))
        pool.resize(fleet_size(plan, waiting, request.store.path, execution, pool.measure))
        plan.coordinator(study, request.store, execution.listener).run(pool, trials)
        return outcome_of(plan, counted(study))


def default_name(strategy: Strategy, base: RunConfig) -> str:
    """``thresholds-agc-digits``, or with the settings that a spelling holds."""
    return f"thresholds-{in_a_name(str(strategy))}-{in_a_name(base.task)}"


def _called(name: str | None, spelling: str, *, alone: bool) -> str | None:
    """The name asked for; with several strategies, each study's ends in its strategy."""
    return name if name is None or alone else f"{name}-{in_a_name(spelling)}"
