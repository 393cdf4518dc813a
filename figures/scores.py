"""Which strategy ends best? Final score (accuracy, as a rule): every seed, and the mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from gclip.results.metric_text import ends_text, score_text
from gclip.results.metrics import metric_of, with_scores
from gclip.results.statistics import rule, trained_from, trained_summary

from ._looks import looks
from ._metrics import around, axis_label, interval_of_mean, worst_of
from ._page import page
from ._rows import diamond, label_rows, row_height, row_points, spread, whisker
from ._same import together
from ._style import (
    MARKS,
    canvas,
    caption,
    finished,
    inches,
    legend,
    letters,
    pt,
    seeds,
    split,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.results import Results


def applies(results: Results) -> bool:
    """Whether these are runs of a comparison; a study's have figures of their own."""
    return not results.study


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
    wide = inches(None if ax is None else ax.figure) > 5
    labels = [
        f"{wrapped(name, letters(0.26))}{'  ' if wide else chr(10)}"
        f"(n = {int((runs['strategy'] == name).sum())})"
        for name in order
    ]
    height = row_height(labels, 0.24)
    axes = canvas(0.45 + height * len(order)).subplots() if ax is None else ax
    figure = axes.figure
    axes.set_xlim(*around(runs["score"], metric))
    least = trained_from(runs, metric)
    numbers = axes.twinx()  # the right-hand axis only carries the numbers
    heights = spread(runs)
    texts = []
    for row, strategy in enumerate(order):
        own = runs[runs["strategy"] == strategy]
        colour = look[strategy].colour
        row_points(axes, own, row + heights, colour, 9, 0.8)
        trained = trained_summary(own, least, metric)
        if not math.isnan(trained["mean_trained_low"]):
            axes.hlines(row, trained["mean_trained_low"], trained["mean_trained_high"],
                        color=colour, linewidth=pt(5), alpha=0.35, zorder=2)  # fmt: skip
        mean = whisker(axes, row, own["score"], metric=metric)
        diamond(axes, mean.value, row, colour)
        ends = ends_text(metric, mean.low, mean.high).replace(",", ", ") or " [n/a]"
        gap = "  " if wide else "\n"
        texts.append(f"{score_text(metric, mean.value)}{ends}{gap}{trained['trained']}/{len(own)}")
    label_rows(axes, numbers, labels, texts, (0.6, 0.6), metric)
    axes.set_xlabel(axis_label(split(runs), metric))
    diverged = int((runs["status"] == "diverged").sum())
    handles = _legend(bool(diverged))
    if ax is not None:
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        return figure
    legend(figure, handles)
    title(figure, f"Final {split(runs).lower()} {metric.name} by strategy", results.runs)
    caption(
        figure,
        f"Points: one run each, a seed at the same height in every row; {seeds(runs)}.",
        f"Diamonds and thin bars: mean and its {interval_of_mean(metric)}. "
        "Wide bars in colour: 95 % t interval of the mean of the runs that trained. "
        f"Right: mean [interval], how many trained ({rule(least, metric)}).",
        f"{diverged} of {len(runs)} runs diverged; they score "
        f"{worst_of(metric, 'chance level')} and count."
        if diverged
        else "No run diverged.",
        together(results),
    )
    return figure


def _legend(diverged: bool) -> list[Line2D]:
    ink = page().style.ink

    def mark(marker: str, label: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=ink, label=label)

    marks = [mark(MARKS["finished"], "a run")]
    if diverged:
        marks.append(mark(MARKS["diverged"], "a run that diverged"))
    return [*marks, mark("D", "mean, 95 % interval")]
