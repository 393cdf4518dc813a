"""Which strategy ends best? Final accuracy: every seed, and the mean with its interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from gclip.results.statistics import rule, trained_from, trained_summary

from ._rows import around, label_rows, row_points, spread, whisker
from ._style import BASELINE, MARKS, canvas, caption, finished, looks, seeds, split, title, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.results import Results


@finished
def draw(results: Results, ax: Axes | None = None) -> Figure | SubFigure:
    """Rows are strategies, the most accurate on top; accuracy in percent.

    Args:
        results: the runs.
        ax: draw into these axes, without the caption; else into a figure of its own.
    """
    runs = results.runs
    look = looks(results.strategies)
    means = runs.groupby("strategy")["accuracy"].mean()
    order = sorted(results.strategies, key=lambda name: (-means[name], name))
    axes = canvas(8.0, 1.9 + 0.36 * len(order)).subplots() if ax is None else ax
    figure = axes.figure
    axes.set_xlim(*around(runs["accuracy"]))
    least = trained_from(runs)
    numbers = axes.twinx()  # the right-hand axis only carries the numbers
    heights = spread(runs)
    labels, texts = [], []
    for row, strategy in enumerate(order):
        own = runs[runs["strategy"] == strategy]
        colour = look[strategy].colour
        row_points(axes, own, row + heights, colour, 22, 0.8)
        trained = trained_summary(own, least)
        if not math.isnan(trained["mean_trained_low"]):
            axes.hlines(row, trained["mean_trained_low"], trained["mean_trained_high"],
                        color=colour, linewidth=7, alpha=0.35, zorder=2)  # fmt: skip
        mean = whisker(axes, row, own["accuracy"])
        axes.scatter(mean.value, row, s=36, marker="D", color=colour, edgecolors="black", zorder=4)
        labels.append(f"{wrapped(strategy, 34)}  (n = {len(own)})")
        ends = "[n/a]" if math.isnan(mean.low) else f"[{100 * mean.low:.0f}, {100 * mean.high:.0f}]"
        texts.append(f"{100 * mean.value:.1f} {ends}  {trained['trained']}/{len(own)}")
    label_rows(axes, numbers, labels, texts, (0.6, 0.6))
    axes.set_xlabel(f"{split(results.runs)} accuracy (%)")
    diverged = int((runs["status"] == "diverged").sum())
    axes.legend(handles=_legend(bool(diverged)), loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    if ax is not None:
        return figure
    title(figure, f"Final {split(results.runs).lower()} accuracy by strategy", results.runs)
    caption(
        figure,
        f"Points: one run each, a seed at the same height in every row; {seeds(runs)}.",
        "Diamonds and black bars: mean and its 95 % interval, which holds where some seeds do not "
        "train, too. Wide bars in colour: 95 % t interval of the mean of the runs that trained. "
        f"Right: mean [interval], how many trained ({rule(least)}).",
        f"{diverged} of {len(runs)} runs diverged; they score chance level and count."
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
