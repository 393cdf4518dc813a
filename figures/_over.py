"""What figures over a number share: means with their intervals, points and axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    NullFormatter,
    PercentFormatter,
)
from numpy.typing import NDArray

from gclip.results.intervals import mean_interval
from gclip.results.metrics import metric_of, with_scores

from ._style import MARKS, dot, pt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def means(
    runs: pd.DataFrame, by: str, measure: str = "score"
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of the runs at each value of `by`: values, means, and the ends of the means' 95 % interval
    (`gclip.results.intervals.mean_interval`, within what the metric can be); of one run its score.
    """
    at, middle, low, high = [], [], [], []
    runs = with_scores(runs)
    metric = metric_of(runs)
    bounds = (metric.low, metric.high) if measure == "score" else (0.0, 1.0)
    groups: Any = runs.groupby(by, sort=True)
    for value, some in groups:
        known = some[measure].dropna()
        if known.empty:
            continue
        mean = mean_interval(known, bounds=bounds)
        at.append(float(value))
        middle.append(mean.value)
        low.append(mean.value if math.isnan(mean.low) else mean.low)
        high.append(mean.value if math.isnan(mean.high) else mean.high)
    return np.array(at), np.array(middle), np.array(low), np.array(high)


def points(axes: Axes, runs: pd.DataFrame, by: str, colour: str) -> None:
    """Every run a point; a run that diverged is a cross.

    Args:
        axes: where.
        runs: one row a run: `status`, `score` or `accuracy`, and what `by` names.
        by: the column of the horizontal axis.
        colour: of all points.
    """
    runs = with_scores(runs)
    for status, marker in MARKS.items():
        some = runs[runs["status"] == status]
        axes.scatter(
            some[by], some["score"], s=dot(7), marker=marker, color=colour, alpha=0.65,
            linewidths=pt(0.8) if marker == "x" else 0, clip_on=False, zorder=3,
        )  # fmt: skip


def percents(axes: Axes) -> None:
    """The vertical axis in percent, from 0 to 100."""
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))


def log_axis(axes: Axes, low: float, high: float) -> None:
    """A horizontal log axis in plain numbers, with few labels."""
    axes.set_xscale("log")
    decades = math.log10(high / low)
    if decades <= 2.2:
        subs: tuple[float, ...] = (1.0, 2.0, 5.0) if decades <= 1.2 else (1.0, 3.0)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
    else:
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """A number of a log axis in few letters."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    return rf"$10^{{{round(math.log10(value))}}}$" if value > 0 else "0"


def even_on_log(values: list[float]) -> bool:
    """Whether sorted values span a decade or so and stand evenly on a log scale, rather than on a
    linear one."""
    if len(values) < 2 or values[0] <= 0 or values[-1] / values[0] < 8:
        return False
    middle = values[len(values) // 2]
    return (middle - values[0]) / (values[-1] - values[0]) < 0.3
