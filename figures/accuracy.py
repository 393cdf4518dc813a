"""Which strategy ends best? Final accuracy: every seed, and the mean with its interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from gclip.results.statistics import mean_interval

from ._style import BASELINE, canvas, caption, looks, seeds, split, spread, title, wrapped

if TYPE_CHECKING:
    from gclip.results import Results

MARKS = {"finished": "o", "diverged": "x"}


def draw(results: Results) -> Figure:
    """Rows are strategies, the most accurate on top; accuracy in percent."""
    runs = results.runs
    look = looks(results.strategies)
    means = runs.groupby("strategy")["accuracy"].mean()
    order = sorted(results.strategies, key=lambda name: (-means[name], name))
    figure = canvas(8.0, 1.9 + 0.36 * len(order))
    axes = figure.subplots()
    numbers = axes.twinx()  # the right-hand axis only carries the numbers
    heights = spread(runs)
    labels, texts, beyond = [], [], False
    for row, strategy in enumerate(order):
        mine = runs[runs["strategy"] == strategy]
        colour = look[strategy].colour
        for status, marker in MARKS.items():
            some = mine[mine["status"] == status]
            at = row + heights[some.index]
            axes.scatter(some["accuracy"], at, s=22, marker=marker, color=colour, alpha=0.8)
        mean = mean_interval(mine["accuracy"])
        beyond = beyond or mean.low < 0 or mean.high > 1
        axes.hlines(row, mean.low, mean.high, color="black", linewidth=1.6, zorder=3)
        axes.scatter(mean.value, row, s=36, marker="D", color=colour, edgecolors="black", zorder=4)
        labels.append(f"{wrapped(strategy, 34)}  (n = {len(mine)})")
        ends = (
            "  [n/a]"
            if math.isnan(mean.low)
            else f"  [{100 * mean.low:.1f}, {100 * mean.high:.1f}]"
        )
        texts.append(f"{100 * mean.value:.1f}{ends}")
    axes.set_yticks(range(len(order)), labels)
    numbers.set_yticks(range(len(order)), texts)
    for side in (axes, numbers):
        side.set_ylim(len(order) - 0.4, -0.6)
        side.grid(visible=False, axis="y")
        side.tick_params(length=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))
    axes.set_xlabel(f"{split(results)} accuracy (%)")
    low = float(runs["accuracy"].min())
    axes.set_xlim(max(-0.02, low - 0.06), 1.01)  # intervals may leave it, accuracies cannot
    diverged = int((runs["status"] == "diverged").sum())
    axes.legend(handles=_legend(bool(diverged)), loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    title(figure, f"Final {split(results).lower()} accuracy by strategy", results)
    caption(
        figure,
        f"Points: one run each, a seed at the same height in every row; {seeds(runs)}.",
        "Diamonds and bars: mean and 95 % t interval over seeds.",
        f"{diverged} of {len(runs)} runs diverged; they score chance level and count."
        if diverged
        else "No run diverged.",
        "An interval beyond 0 or 100 %: so few, so different runs say little about the mean."
        if beyond
        else "",
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
        Line2D([], [], marker="D", ms=5, color="black", label="mean, 95 % interval (right)"),
    ]
