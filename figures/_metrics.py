"""How a metric is drawn: its axis, its range, and what is said of runs that diverged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FixedLocator, PercentFormatter

from gclip.results.metrics import is_accuracy
from gclip.training.metric import Metric

from ._page import page
from ._style import pt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def axis_label(split: str, metric: Metric) -> str:
    """``Test accuracy (%)``, ``Validation perplexity``."""
    return f"{split} {metric.name}" + (f" ({metric.unit})" if metric.unit else "")


def format_axis(axis: Any, metric: Metric, decimals: int | None = None) -> None:
    """Write the axis' numbers in the metric's unit.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``.
        metric: that is drawn along it.
        decimals: of percents; as many as it takes by default.
    """
    if metric.unit == "%":
        axis.set_major_formatter(PercentFormatter(1, decimals=decimals, symbol=""))


def whole_range(axes: Axes, metric: Metric) -> None:
    """The vertical axis over all of the metric's range, as far as it has ends: for accuracy from 0
    to 100 %. Otherwise matplotlib's own limits, within the range."""
    if metric.unit == "%" and math.isfinite(metric.low) and math.isfinite(metric.high):
        axes.set_ylim(metric.low - 0.02, metric.high + 0.02)
        axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    else:
        clip_axis(axes, metric)
    format_axis(axes.yaxis, metric, 0)


def clip_axis(axes: Axes, metric: Metric, share: float = 0.02) -> None:
    """Keep the vertical axis within the metric's range, and a little room for marks at its ends."""
    bottom, top = axes.get_ylim()
    room = share * _width(metric, top - bottom)
    axes.set_ylim(max(bottom, metric.low - room), min(top, metric.high + room))


def around(scores: pd.Series[float], metric: Metric) -> tuple[float, float]:
    """The ends of a horizontal axis of scores. Of accuracies: from a little below the lowest run to
    100 %; intervals may go on below it. Of others: all runs, with room at both ends, within the
    range."""
    if is_accuracy(metric):
        return max(-0.02, float(scores.min()) - 0.06) if len(scores) else -0.02, 1.01
    if not len(scores):
        return 0.0, 1.0
    low, high = float(scores.min()), float(scores.max())
    room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    edge = 0.02 * (high - low)
    return max(low - room, metric.low - edge), min(high + room, metric.high + edge)


def mark_worst(axes: Axes, metric: Metric) -> bool:
    """A thin line where diverged runs count, named so, if the axis has it anyway; whether it does.

    Of accuracy there is none: that chance is low is known.
    """
    bottom, top = sorted(axes.get_ylim())
    if is_accuracy(metric) or not bottom <= metric.worst <= top:
        return False
    soft = page().style.soft
    axes.axhline(metric.worst, color=soft, linewidth=pt(0.7), linestyle=(0, (1, 2)), zorder=1)
    axes.annotate(
        "diverged", (1, metric.worst), xycoords=("axes fraction", "data"), ha="right", va="bottom",
        fontsize="small", color=soft,
    )  # fmt: skip
    return True


def worst_of(metric: Metric, chance: str = "chance") -> str:
    """What a diverged run scores, in a caption: ``chance``, or ``the worst value (0.167)``."""
    return chance if is_accuracy(metric) else f"the worst value ({metric.text(metric.worst)})"


def interval_of_mean(metric: Metric, subject: str = "some seeds do") -> str:
    """What the interval of a mean is, in a caption."""
    if math.isfinite(metric.low) and math.isfinite(metric.high):
        return f"95 % interval, which holds where {subject} not train, too"
    return f"95 % t interval, which is too narrow where {subject} not train"


def _width(metric: Metric, seen: float) -> float:
    whole = metric.high - metric.low
    return whole if math.isfinite(whole) else seen
