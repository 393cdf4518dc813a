"""Which strategy ends best? Final score (accuracy, as a rule): every seed, and the mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from gclip.results.metric_text import score_text
from gclip.results.metrics import metric_of, with_scores
from gclip.results.statistics import rule, trained_from, trained_summary

from ._metrics import around, axis_label, interval_of_mean, worst_of
from ._rows import label_rows, row_points, spread, whisker
from ._style import BASELINE, MARKS, canvas, caption, finished, looks, seeds, split, title, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.results import Results


@finished
def draw(results: Results, ax: Axes | None = None) -> Figure | SubFigure:
    """Rows are strategies, the best on top; the axis is the runs' metric, accuracy in percent.

    Args:
        results: the runs.
        ax: draw into these axes, without the caption; else into a figure of its own.
    """
    runs = with_scores(results.runs)
    metric = metric_of(runs)
    look = looks(results.strategies)
    means = runs.groupby("strategy")["score"].mean()
    order = sorted(results.strategies, key=lambda name: (-metric.sign * means[name], name))
    axes = canvas(8.0, 1.9 + 0.36 * len(order)).subplots() if ax is None else ax
    figure = axes.figure
    axes.set_xlim(*around(runs["score"], metric))
    least = trained_from(runs, metric)
    numbers = axes.twinx()  # the right-hand axis only carries the numbers
    heights = spread(runs)
    labels, texts = [], []
    for row, strategy in enumerate(order):
        own = runs[runs["strategy"] == strategy]
        colour = look[strategy].colour
        row_points(axes, own, row + heights, colour, 22, 0.8)
        trained = trained_summary(own, least, metric)
        if not math.isnan(trained["mean_trained_low"]):
            axes.hlines(row, trained["mean_trained_low"], trained["mean_trained_high"],
                        color=colour, linewidth=7, alpha=0.35, zorder=2)  # fmt: skip
        mean = whisker(axes, row, own["score"], metric=metric)
        axes.scatter(mean.value, row, s=36, marker="D", color=colour, edgecolors="black", zorder=4)
        labels.append(f"{wrapped(strategy, 34)}  (n = {len(own)})")
        digits = max(metric.decimals - 1, 0)
        low, high = (score_text(metric, end, digits) for end in (mean.low, mean.high))
        ends = "[n/a]" if math.isnan(mean.low) else f"[{low}, {high}]"
        value = score_text(metric, mean.value)
        texts.append(f"{value} {ends}  {trained['trained']}/{len(own)}")
    label_rows(axes, numbers, labels, texts, (0.6, 0.6), metric)
    axes.set_xlabel(axis_label(split(runs), metric))
    diverged = int((runs["status"] == "diverged").sum())
    axes.legend(handles=_legend(bool(diverged)), loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    if ax is not None:
        return figure
    title(figure, f"Final {split(runs).lower()} {metric.name} by strategy", results.runs)
    caption(
        figure,
        f"Points: one run each, a seed at the same height in every row; {seeds(runs)}.",
        f"Diamonds and black bars: mean and its {interval_of_mean(metric)}. "
        "Wide bars in colour: 95 % t interval of the mean of the runs that trained. "
        f"Right: mean [interval], how many trained ({rule(least, metric)}).",
        f"{diverged} of {len(runs)} runs diverged; they score "
        f"{worst_of(metric, 'chance level')} and count."
        if diverged
        else "No run diverged.",
    )
    return figure


def _legend(diverged: bool) -> list[Line2D]:
    def mark(marker: str, label: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=BASELINE, ms=5, label=label)

    marks = [mark(MARKS["finished"], "a run")]
    if diverged:
        marks.append(mark(MARKS["diverged"], "a run that diverged"))
    return [
        *marks,
        Line2D([], [], marker="D", ms=5, color="black", label="mean, 95 % interval"),
    ]
