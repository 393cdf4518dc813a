"""How the studies write intervals, factors, lists and names."""

from __future__ import annotations

import math
from collections.abc import Iterable

from gclip.results.metric_text import interval_text, named, score_text
from gclip.results.metrics import is_accuracy
from gclip.training.metric import ACCURACY, Metric


def interval(
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    sign: bool = False,
    metric: Metric = ACCURACY,
) -> str:
    """``95.3 ± 1.2``, or ``95.3 [66,97]`` where the interval is not symmetric.

    Args:
        value: in the middle.
        low: lower end.
        high: upper end.
        sign: whether a plus is written.
        metric: of the values.
    """
    return interval_text(metric, value, low, high, sign=sign)


def points(value: float, metric: Metric, *, sign: bool = True) -> str:
    """A difference with its unit: ``+1.2 points``, ``-0.031``."""
    return points_of(score_text(metric, value, sign=sign), metric)


def points_of(text: str, metric: Metric) -> str:
    """A difference that is written already, with its unit: of shares, percentage points."""
    return f"{text} {'points' if metric.unit == '%' else metric.unit}".strip()


def measured(split: str, metric: Metric) -> str:
    """A metric on a split: ``test accuracy in %``, ``validation perplexity (lower is better)``."""
    return f"{split} {metric.name}{named(metric)[len(metric.name) :]}"


def data_of(split: str, metric: Metric) -> str:
    """What was scored: ``test images``; of another metric than accuracy ``test data``."""
    return f"{split} {'images' if is_accuracy(metric) else 'data'}"


def order_of(score: float | None, metric: Metric) -> float:
    """What rows are sorted by, so that the best come first and those without a score last."""
    if score is None:
        return 0.0 if is_accuracy(metric) else math.inf
    return -metric.sign * score


def factor(value: float | None) -> str:
    """``×3.2``, ``×32``."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"×{value:.2g}" if value < 10 else f"×{value:.0f}"


def listed(words: Iterable[object]) -> str:
    """``a, b and c``."""
    *most, last = [str(word) for word in words]
    return f"{', '.join(most)} and {last}" if most else last
