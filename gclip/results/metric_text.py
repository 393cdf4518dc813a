"""How a metric's values, their intervals and their worst are written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gclip.text.screen import decimal

if TYPE_CHECKING:
    from gclip.training.metric import Metric


def score_text(
    metric: Metric, value: float | None, digits: int | None = None, *, sign: bool = False
) -> str:
    """A value in the metric's unit, without the unit: ``95.3``; a dash where there is none.

    Args:
        metric: of the value.
        value: as the metric has it, so a share for ``%``.
        digits: after the point; the metric's own by default.
        sign: whether a plus is written.
    """
    scaled = None if value is None else metric.scale * value
    return decimal(scaled, metric.decimals if digits is None else digits, sign=sign)


def score_with_unit(metric: Metric, value: float | None) -> str:
    """``95.3 %``, ``0.012``."""
    return f"{score_text(metric, value)} {metric.unit}".strip()


def ends_text(metric: Metric, low: float, high: float) -> str:
    """`` [66,97]``, with one digit less than a value has, because so few runs say no more."""
    if math.isnan(low):
        return ""
    digits = max(metric.decimals - 1, 0)
    return f" [{score_text(metric, low, digits)},{score_text(metric, high, digits)}]"


def interval_text(
    metric: Metric,
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    sign: bool = False,
) -> str:
    """``95.3 ± 1.2``, or ``95.3 [66,97]`` where the interval is not symmetric.

    Args:
        metric: of the values.
        value: in the middle.
        low: lower end.
        high: upper end.
        sign: whether a plus is written.
    """
    text = score_text(metric, value, sign=sign)
    if value is None or low is None or high is None or math.isnan(low) or math.isnan(high):
        return text
    if abs(low + high - 2 * value) > 1e-9 * max(1.0, high - low):
        return text + ends_text(metric, low, high)
    return f"{text} ± {score_text(metric, (high - low) / 2)}"


def named(metric: Metric) -> str:
    """The metric at the start of a sentence: ``Accuracy in %``, ``Perplexity (lower is better)``.

    That higher is better is said of no metric: it is what a reader expects.
    """
    name = metric.name[:1].upper() + metric.name[1:]
    unit = f" in {metric.unit}" if metric.unit else ""
    return name + unit + (" (lower is better)" if metric.better == "lower" else "")


def interval_words(metric: Metric, subject: str = "some seeds do") -> str:
    """What is said of the interval of a mean (`gclip.results.intervals.mean_interval`)."""
    if math.isfinite(metric.low) and math.isfinite(metric.high):
        return f"95 % interval that holds where {subject} not train, too"
    return f"95 % t interval, which is too narrow where {subject} not train"


def worst_words(metric: Metric) -> str:
    """What a diverged run counts as: ``chance``, or ``the worst value, 0.167``."""
    if metric.name == "accuracy":
        return "chance"
    return f"the worst value, {score_with_unit(metric, metric.worst)}"


def p_text(value: float, space: str = "") -> str:
    """``p=.034``, ``p<.001``; with a `space` around the sign ``p = .034``."""
    sign, number = ("<", ".001") if value < 0.001 else ("=", f"{value:.3f}".replace("0.", ".", 1))
    return f"p{space}{sign}{space}{number}"
