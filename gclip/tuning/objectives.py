"""What does a study seek? The best score; or, with it, to clip less or to cost less.

The score is the task's metric, and its direction that of the objective. Where the metric is
accuracy the objective is called so, too; else ``score``. A trial's values are the means over its
runs. A diverged run counts with the worst there is, never with NaN, which a sampler would not see:
the metric's worst value (chance as its accuracy), clipped in every step, and as dear as the dearest
trial so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from gclip.errors import UsageError, choose
from gclip.training.metric import ACCURACY, Metric

if TYPE_CHECKING:
    from optuna import Study

    from gclip.training import RunResult

Direction = Literal["maximize", "minimize"]
SCORE = "score"
"""The objective that is the task's metric, unless that is accuracy."""
OTHERS = ("clip_rate", "cost")
"""Share of the steps clipped; seconds of wall clock a run. Both are minimised."""
OBJECTIVES = (ACCURACY.name, *OTHERS)
"""Those of a task that is measured by accuracy; of others the first is `SCORE`."""


def score_name(metric: Metric) -> str:
    """What the objective of a metric is called: ``accuracy``, or ``score``."""
    return ACCURACY.name if metric.name == ACCURACY.name else SCORE


def check_objectives(
    objectives: Sequence[str] | None, metric: Metric = ACCURACY
) -> tuple[str, ...]:
    """The objectives, that of the metric first, by the names that it gives them.

    Args:
        objectives: that are asked for; None for the metric alone.
        metric: of the task.

    Raises:
        UsageError: an unknown one, one named twice, or the metric is not among them: never to clip,
            and to train nothing, would be best.
    """
    quality = score_name(metric)
    if objectives is None:
        return (quality,)
    objectives = [quality if name == SCORE else name for name in objectives]
    for name in objectives:
        choose(name, (quality, *OTHERS), "objective")
    twice = next((name for name in objectives if objectives.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"the objective {twice} is there twice; name each once")
    if quality not in objectives:
        raise UsageError(
            f"{quality} must be among the objectives, but got {', '.join(objectives) or 'none'}"
        )
    return tuple(sorted(objectives, key=(quality, *OTHERS).index))


def directions(objectives: Sequence[str], metric: Metric = ACCURACY) -> list[Direction]:
    """Which way each objective goes."""
    quality: Direction = "maximize" if metric.better == "higher" else "minimize"
    return ["minimize" if name in OTHERS else quality for name in objectives]


def write_metric(study: Study, metric: Metric) -> None:
    """Keep a study's metric in it, so that it can be shown where its task is not known."""
    if metric.name != ACCURACY.name and "metric" not in study.user_attrs:
        study.set_user_attr("metric", metric.to_dict())


def metric_of_study(study: Study) -> Metric:
    """What a study's trials are judged by; accuracy where none was written."""
    written = study.user_attrs.get("metric")
    return ACCURACY if written is None else Metric.from_dict(written)


def curve_score(point: Mapping[str, Any], metric: Metric) -> float:
    """The metric's value of a point of a learning curve, or of a run under way (`finite_score`)."""
    return finite_score(point.get("score", point.get(ACCURACY.name)), metric)


def finite_score(score: float | None, metric: Metric) -> float:
    """A score that a sampler and a pruner can take: the worst value where it is not finite."""
    if score is not None and math.isfinite(score):
        return score
    return 0.0 if metric.name == ACCURACY.name else metric.worst


def values_of(
    results: Sequence[RunResult], objectives: Sequence[str], *, dearest: float = 0.0
) -> list[float]:
    """What a trial of these runs is told with: always finite numbers.

    Args:
        dearest: the largest cost of the trials before, which a diverged one is given.
    """
    return [
        sum(_value(result, name, dearest) for result in results) / len(results)
        for name in objectives
    ]


def _value(result: RunResult, name: str, dearest: float) -> float:
    diverged = result.status == "diverged"
    if name == ACCURACY.name:
        return finite_score(result.accuracy, ACCURACY)
    if name == SCORE:
        return finite_score(math.nan if diverged else result.score, result.metric)
    if name == "clip_rate":
        rate = float(result.clipping.get("clip_rate", 1.0))
        return 1.0 if diverged or not math.isfinite(rate) else rate
    if not diverged:
        return result.seconds
    # It stopped early, and must not look cheap for that: what the whole run would have taken.
    reached = max(1, result.curve[-1]["epoch"]) if result.curve else 1
    return max(dearest, result.seconds * result.config.epochs / reached)
