"""Rows of scores, a strategy each: every run a point, the mean with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gclip.results.metrics import with_scores
from gclip.results.statistics import Interval, mean_interval
from gclip.training.metric import ACCURACY, Metric

from ._metrics import format_axis
from ._page import page
from ._style import MARKS, dot, pt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def spread(runs: pd.DataFrame, height: float = 0.26) -> pd.Series[float]:
    """A vertical offset in ±height for each run: one a seed, so that a seed stays on its line."""
    ranks = runs["seed"].rank(method="dense") - 1
    last = max(float(ranks.max()), 1.0)
    centred = ranks - ranks.max() / 2
    return centred / last * 2 * height


def row_points(
    axes: Axes, runs: pd.DataFrame, at: pd.Series[float], colour: str, size: float, alpha: float
) -> None:
    """The runs of a row, each a point at its score; one that diverged is a cross.

    Args:
        axes: where.
        runs: one row a run: `status`, `score` or `accuracy`.
        at: their heights, by the runs' index.
        colour, alpha: of all points.
        size: of a point, in points squared.
    """
    runs = with_scores(runs)
    for status, marker in MARKS.items():
        some = runs[runs["status"] == status]
        axes.scatter(
            some["score"], at[some.index], s=dot(size), marker=marker, color=colour, alpha=alpha,
            linewidths=pt(0.8) if marker == "x" else 0,
        )  # fmt: skip


def whisker(
    axes: Axes,
    place: float,
    scores: Iterable[float],
    width: float = 1.2,
    metric: Metric = ACCURACY,
) -> Interval:
    """Draw the mean's 95 % interval as a line in ink; an arrow where it goes on beyond the axis.

    Args:
        axes: with the limits of its horizontal axis set.
        place: the height of the line.
        scores: one a run.
        width: of the line, in points.
        metric: of the scores.

    Returns:
        The mean with the interval.
    """
    mean = mean_interval(list(scores), bounds=(metric.low, metric.high))
    ink = page().style.ink
    if not math.isnan(mean.low):
        left, right = axes.get_xlim()
        ends = max(mean.low, left), min(mean.high, right)
        axes.hlines(place, *ends, color=ink, linewidth=pt(width), zorder=3)
        for beyond, end, marker in (
            (mean.low < left, left, "<"),
            (mean.high > right, right, ">"),
        ):
            if beyond:
                axes.scatter(end, place, s=dot(14), marker=marker, color=ink, zorder=3,
                             clip_on=False, linewidths=0)  # fmt: skip
    return mean


def label_rows(
    axes: Axes,
    right: Axes,
    labels: Sequence[str],
    texts: Sequence[str],
    ends: tuple[float, float],
    metric: Metric = ACCURACY,
) -> None:
    """Rows of scores, the first on top, named on the left and told in numbers on the right.

    Args:
        axes: of the rows.
        right: its twin, which only carries the numbers.
        labels, texts: one a row.
        ends: how far the axis goes on above the first row and below the last.
        metric: of the scores.
    """
    axes.set_yticks(range(len(labels)), labels)
    right.set_yticks(range(len(texts)), texts)
    for side in (axes, right):
        side.set_ylim(len(labels) - 1 + ends[1], -ends[0])
        side.grid(visible=False, axis="y")
        side.tick_params(length=0)
    format_axis(axes.xaxis, metric)


def diamond(axes: Axes, value: float, place: float, colour: str, size: float = 17) -> None:
    """The mean of a row."""
    axes.scatter(value, place, s=dot(size), marker="D", color=colour, zorder=4,
                 edgecolors=page().style.ink, linewidths=pt(0.7))  # fmt: skip


def row_height(labels: Sequence[str], least: float = 0.2) -> float:
    """Inches of paper for each row, whose labels may have several lines."""
    lines = max((label.count("\n") + 1 for label in labels), default=1)
    return max(least, 0.07 + 0.1 * lines)
