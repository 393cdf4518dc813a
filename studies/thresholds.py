"""How large should the limit be? Tunes a strategy's tunable fields, the learning rate with them.

The search space is read from the strategy's class (`gclip.tuning.space`), so a new strategy can be
tuned the moment it is registered. Trials are scored on validation images with seeds that no
comparison uses by default: test images and reporting seeds stay unseen. Several strategies are one
study each, with the same number of trials.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError
from gclip.execution.run_all import open_pool
from gclip.tuning.commands import as_options
from gclip.tuning.fleet_size import fleet_size
from gclip.tuning.plan import TUNING_SEEDS as TUNING_SEEDS
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
from gclip.tuning.trials import Counts, best_of, complete, config_of, counted, counts, front_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from gclip import Strategy
    from gclip.training import RunConfig

USES = (
    *("trials", "lr_range", "fixed_lr", "space", "sampler", "pruner"),
    *("seeds_per_trial", "objectives", "points"),
)
TRIALS = 20

_COLUMNS = {
    "strategy": "strategy",
    "trials": "trials",
    "div.": "diverged",
    "pruned": "pruned",
    "failed": "failed",
    "validation": "score_text",
    "best": "spelling",
    "lr": "lr_text",
}
_SHOWN = {"accuracy": "accuracy", "clip_rate": "steps clipped", "cost": "seconds"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one study.

    Attributes:
        plan: what was searched.
        counts: how its trials ended.
        best: the config of the best trial, by accuracy; None where no trial was completed.
        score: its validation accuracy.
        number: which trial it was.
        front: the trials on the Pareto front, where there are several objectives.
        scores: validation accuracies of the complete trials, in their order; chance where diverged.
    """

    plan: Plan
    counts: Counts
    best: RunConfig | None
    score: float | None
    number: int | None
    front: tuple[FrozenTrial, ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The study's."""
        return self.plan.name


def run(request: Request) -> Answer:
    """Tune each strategy of `request`; the same again resumes and ends at the same totals.

    Raises:
        UsageError: before any trial, for anything that can be known to be wrong.
    """
    made = plans(request)
    trials = trials_of(request, made)
    outcomes = [tune(request, plan, trials) for plan in made]
    return Answer(
        rows=[_row(outcome) for outcome in outcomes],
        columns=_columns(outcomes),
        notes=_notes(outcomes, request),
        more={"studies": [_as_json(outcome) for outcome in outcomes]},
        ok=all(outcome.best is not None for outcome in outcomes),
    )


def run_count(request: Request) -> int:
    """How many runs there will be at most, for a display of how far they are."""
    made = plans(request)
    return trials_of(request, made) * sum(plan.seeds_per_trial for plan in made)


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
    twice = next((text for text in spelled if spelled.count(text) > 1), None)
    if twice is not None:
        raise UsageError(f"the strategy {twice} is there twice; name each strategy once")
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


def trials_of(request: Request, made: Sequence[Plan]) -> int:
    """How many trials each study gets: the same for all; a whole grid unless told otherwise."""
    trials = request.trials
    if trials is None:
        sizes = {plan.space.strategy.name: plan.most for plan in made if plan.most is not None}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise UsageError(
                f"the grids differ in size ({told}), and every strategy is to have the same "
                "number of trials: give --trials"
            )
        trials = next(iter(sizes.values()), None) or TRIALS
    for plan in made:
        plan.check_trials(trials)
    return trials


def tune(request: Request, plan: Plan, trials: int) -> Outcome:
    """Make the trials of one plan, as far as they were not made, in the request's store."""
    plan.check_trials(trials)
    execution = request.execution.resolved()
    with open_study(request.store.path, plan.name, plan.settings, plan.objectives) as study:
        waiting = trials - len(counted(study))
        with open_pool(request.store, execution) as pool:
            pool.resize(fleet_size(plan, waiting, request.store.path, execution, pool.measure))
            plan.coordinator(study, request.store, execution.listener).run(pool, trials)
        return outcome_of(plan, counted(study))


def outcome_of(plan: Plan, trials: Sequence[FrozenTrial]) -> Outcome:
    """What came of a study whose trials are these."""
    best = best_of(trials)
    several = len(plan.objectives) > 1
    return Outcome(
        plan=plan,
        counts=counts(trials),
        best=None if best is None else config_of(best),
        score=None if best is None else best.values[0],
        number=None if best is None else best.number,
        front=tuple(front_of(trials, plan.objectives)) if several else (),
        scores=tuple(trial.values[0] for trial in complete(trials)),
    )


def default_name(strategy: Strategy, base: RunConfig) -> str:
    """``thresholds-agc-digits``, or with the settings that a spelling holds."""
    return f"thresholds-{_plain(str(strategy))}-{base.task}"


def _called(name: str | None, spelling: str, *, alone: bool) -> str | None:
    """The name asked for; with several strategies, each study's ends in its strategy."""
    return name if name is None or alone else f"{name}-{_plain(spelling)}"


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text).strip("-")


def _row(outcome: Outcome) -> dict[str, Any]:
    found, best = outcome.counts, outcome.best
    return {
        "study": outcome.name,
        "strategy": str(outcome.plan.space.strategy),
        "trials": found.trials,
        "finished": found.finished,
        "diverged": found.diverged,
        "pruned": found.pruned,
        "failed": found.failed,
        "score": outcome.score,
        "score_text": _percent(outcome.score),
        "trial": outcome.number,
        "spelling": "–" if best is None else best.strategy,
        "lr": None if best is None else best.lr,
        "lr_text": "–" if best is None else f"{best.lr:g}",
    }


def _columns(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Nobody needs to read that nothing was pruned and nothing failed."""
    nothing = {
        name
        for name in ("pruned", "failed")
        if not any(getattr(outcome.counts, name) for outcome in outcomes)
    }
    return {heading: key for heading, key in _COLUMNS.items() if key not in nothing}


def _notes(outcomes: Sequence[Outcome], request: Request) -> list[str]:
    notes: list[str] = []
    for outcome in outcomes:
        best = outcome.best
        notes.append(f"study {outcome.name}: {outcome.counts}; kept in {request.store.path}")
        if best is None:
            notes.append("No trial was completed, so there is no best.")
            continue
        notes.append(
            f"best: {best.strategy} at lr {best.lr:g}, {_percent(outcome.score)} % validation "
            f"accuracy (trial {outcome.number})"
        )
        notes += _front_lines(outcome)
    tuned = [outcome for outcome in outcomes if outcome.best is not None]
    if not tuned:
        return notes
    first = max(tuned, key=lambda outcome: outcome.score or 0.0)
    best = first.best
    if best is None:
        return notes
    options = as_options(best, request.execution)
    seeds = first.plan.seeds_per_trial
    words = "one seed" if seeds == 1 else f"{seeds} seeds"
    what = "This score is" if len(tuned) == 1 else "These scores are each"
    whose = "it looks better than it is" if len(tuned) == 1 else "they look better than they are"
    rival = "" if best.strategy == "none" else f' -s "{best.strategy}"'
    notes += [
        "",
        "To use it:" if len(tuned) == 1 else "To use the best of them:",
        f'  gclip train -s "{best.strategy}"{options}',
        f'  clipper = gclip.Clipper(model, "{best.strategy}")    # in Python, with lr={best.lr:g}',
        "",
        f"{what} the best of {first.counts.trials} tries with {words}, so {whose}.",
    ]
    if len(tuned) == 1:
        notes += [
            "On fresh seeds and test images:",
            f"  gclip compare -s none{rival}{options}",
        ]
    return notes


def _front_lines(outcome: Outcome) -> list[str]:
    if not outcome.front:
        return []
    names = outcome.plan.objectives
    lines = [
        f"No finished trial beats one of these {len(outcome.front)} in one objective without "
        "losing in another:"
    ]
    for trial in outcome.front:
        config = config_of(trial)
        values = ", ".join(
            _shown(name, value) for name, value in zip(names, trial.values, strict=True)
        )
        lines.append(f"  {values}: {config.strategy} at lr {config.lr:g} (trial {trial.number})")
    return lines


def _shown(name: str, value: float) -> str:
    text = f"{value:.2f}" if name == "cost" else f"{_percent(value)} %"
    return f"{text} {_SHOWN[name]}"


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "study": outcome.name,
        "strategy": str(outcome.plan.space.strategy),
        "space": {name: str(each) for name, each in outcome.plan.space.dimensions.items()},
        "sampler": outcome.plan.sampler,
        "pruner": outcome.plan.pruner,
        "objectives": list(outcome.plan.objectives),
        "seeds": list(outcome.plan.seeds),
        "trials": outcome.counts.trials,
        "diverged": outcome.counts.diverged,
        "pruned": outcome.counts.pruned,
        "failed": outcome.counts.failed,
        "score": outcome.score,
        "trial": outcome.number,
        "best": None if outcome.best is None else json.loads(outcome.best.to_json()),
        "front": [
            {
                "trial": trial.number,
                "strategy": config_of(trial).strategy,
                "lr": config_of(trial).lr,
                **dict(zip(outcome.plan.objectives, trial.values, strict=True)),
            }
            for trial in outcome.front
        ],
    }


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
