"""What came of one study: how its trials ended, and the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gclip.tuning.plan import Plan
from gclip.tuning.trials import Counts, best_of, complete, config_of, counts, front_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from gclip.training import RunConfig
    from gclip.training.metric import Metric


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one study.

    Attributes:
        plan: what was searched.
        counts: how its trials ended.
        best: the config of the best trial, by the metric; None where no trial was completed.
        score: what it scored on validation data, by the plan's metric.
        number: which trial it was.
        front: the trials on the Pareto front, where there are several objectives.
        scores: those of the complete trials, in their order; the worst value where diverged.
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

    @property
    def metric(self) -> Metric:
        """What `score` is."""
        return self.plan.metric


def outcome_of(plan: Plan, trials: Sequence[FrozenTrial]) -> Outcome:
    """What came of a study whose trials are these."""
    best = best_of(trials, plan.metric)
    several = len(plan.sought) > 1
    return Outcome(
        plan=plan,
        counts=counts(trials),
        best=None if best is None else config_of(best),
        score=None if best is None else best.values[0],
        number=None if best is None else best.number,
        front=tuple(front_of(trials, plan.sought, plan.metric)) if several else (),
        scores=tuple(trial.values[0] for trial in complete(trials)),
    )
