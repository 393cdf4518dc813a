"""Rows of accuracies, a strategy each: every run a point, the mean with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from matplotlib.ticker import PercentFormatter

from gclip.results.statistics import Interval, mean_interval

from ._style import MARKS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def around(scores: pd.Series[float]) -> tuple[float, float]:
    """The ends of an axis of accuracies: from a little below the lowest run to 100 %. Intervals may
    go on below it."""
    return max(-0.02, float(scores.min()) - 0.06) if len(scores) else -0.02, 1.01


def spread(runs: pd.DataFrame, height: float = 0.26) -> pd.Series[float]:
    """A vertical offset in ±height for each run: one a seed, so that a seed stays on its line."""
    ranks = runs["seed"].rank(method="dense") - 1
    last = max(float(ranks.max()), 1.0)
    centred = ranks - ranks.max() / 2
    return centred / last * 2 * height


def row_points(
    axes: Axes, runs: pd.DataFrame, at: pd.Series[float], colour: str, size: float, alpha: float
) -> None:
    """The runs of a row, each a point at its accuracy; one that diverged is a cross.

    Args:
        axes: where.
        runs: one row a run: `status`, `accuracy`.
        at: their heights, by the runs' index.
        colour, alpha: of all points.
        size: of a point, in points squared.
    """
    for status, marker in MARKS.items():
        some = runs[runs["status"] == status]
        axes.scatter(
            some["accuracy"], at[some.index], s=size, marker=marker, color=colour, alpha=alpha
        )


def whisker(axes: Axes, place: float, scores: Iterable[float], width: float = 1.5) -> Interval:
    """Draw the mean's 95 % interval as a black line; an arrow where it goes on beyond the axis.

    Args:
        axes: with the limits of its horizontal axis set.
        place: the height of the line.
        scores: one a run.
        width: of the line, in points.

    Returns:
        The mean with the interval.
    """
    mean = mean_interval(list(scores))
    if not math.isnan(mean.low):
        left = axes.get_xlim()[0]
        axes.hlines(place, max(mean.low, left), mean.high, color="black", linewidth=width, zorder=3)
        if mean.low < left:
            axes.scatter(left, place, s=26, marker="<", color="black", zorder=3, clip_on=False)
    return mean


def label_rows(
    axes: Axes, right: Axes, labels: Sequence[str], texts: Sequence[str], ends: tuple[float, float]
) -> None:
    """Rows of accuracies, the first on top, named on the left and told in numbers on the right.

    Args:
        axes: of the rows, in percent.
        right: its twin, which only carries the numbers.
        labels, texts: one a row.
        ends: how far the axis goes on above the first row and below the last.
    """
    axes.set_yticks(range(len(labels)), labels)
    right.set_yticks(range(len(texts)), texts)
    for side in (axes, right):
        side.set_ylim(len(labels) - 1 + ends[1], -ends[0])
        side.grid(visible=False, axis="y")
        side.tick_params(length=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))
