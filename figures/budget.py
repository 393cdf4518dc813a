"""What does a budget of trials buy? The expected best score of k random trials, over k."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gclip.errors import UsageError
from gclip.results.budget import BudgetCurve, budget_curve
from gclip.results.frames import ordered
from gclip.results.metrics import is_accuracy, metric_of

from ._looks import looks
from ._metrics import axis_label, clip_axis, format_axis, mark_worst, worst_of
from ._page import page
from ._style import (
    caption,
    columns_for,
    extent,
    left_out,
    legend,
    letters,
    of_results,
    panels,
    pt,
    room,
    side_label,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from gclip.results import Results

RANDOM = "random"
"""The sampler whose trials may be taken in any order."""


USUAL = False


def applies(results: Results) -> bool:
    """Whether there are at least two random trials of a strategy."""
    return any(len(curve.mean) > 1 for curve in _curves(results).values())


@of_results
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A panel a strategy, all the others in grey, ``none`` dashed.

    Args:
        results: of a study that searched at random.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: there are no random trials.
    """
    found = _curves(results)
    if not found:
        raise UsageError(
            "a budget's curve needs random trials: gclip study run budget, or --sampler random"
        )
    metric = metric_of(results.trials)
    strategies = ordered(found)
    look = looks(strategies)
    columns = columns_for(len(strategies), 1.35, figure)
    lines = -(-len(strategies) // columns)
    figure = room(figure, 0.65 + 1.3 * lines)
    grid = panels(figure, len(strategies), columns, sharex=True, sharey=True)
    every = {text: np.column_stack([_trials(c), c.mean]) for text, c in found.items()}
    lowest = min(float(curve.mean.min()) for curve in found.values())
    longest = max(len(curve.mean) for curve in found.values())
    faint, ink = page().style.faint, page().style.ink
    for axes, text in zip(grid, strategies, strict=True):
        colour, curve = look[text].colour, found[text]
        others = [line for name, line in every.items() if name not in (text, "none")]
        axes.add_collection(LineCollection(others, colors=faint, linewidths=pt(0.6), zorder=1))
        if "none" in every and text != "none":
            axes.plot(*every["none"].T, color=ink, linewidth=pt(0.9), linestyle=(0, (4, 2)))
        axes.fill_between(
            _trials(curve), curve.low, curve.high, color=colour, alpha=0.17, linewidth=0
        )
        marker = "o" if len(curve.mean) == 1 else ""
        axes.plot(_trials(curve), curve.mean, color=colour, linewidth=pt(1.4), marker=marker)
        axes.set_title(wrapped(text, letters(0.86 / columns, figure=figure)))
        axes.spines["top"].set(color=colour, linewidth=pt(2.2))
    if is_accuracy(metric):
        grid[0].set_ylim(max(-0.02, lowest - 0.1), 1.02)
    else:
        clip_axis(grid[0], metric)
    for axes in grid:
        mark_worst(axes, metric)
    grid[0].set_xlim(1 - 0.03 * longest, longest + 0.03 * longest)
    format_axis(grid[0].yaxis, metric, 0)
    grid[0].xaxis.set_major_locator(MaxNLocator(4, integer=True))
    side_label(figure, _label(metric))
    for axes in grid[-columns:]:
        axes.set_xlabel("Random trials")
    legend(figure, _legend("none" in every, len(every) > 2))
    title(figure, "What a budget of trials buys", results.runs.drop(columns="lr", errors="ignore"))
    others_sought = set(results.trials["strategy"]) - set(found)
    caption(
        figure,
        f"n = {extent(len(curve.mean) for curve in found.values())} random trials "
        "a strategy, learning rate and fields together; diverged trials score "
        f"{worst_of(metric)}.",
        "Lines: the expected best of k of them; bands: from the 10 % least to the 10 % most lucky "
        "choices of k, cut off below. The best of many single runs looks better than it is.",
        left_out(ordered(others_sought), "their sampler learns, so trials have an order"),
    )
    return figure


def _label(metric: Any) -> str:
    return axis_label("Validation", metric).replace(metric.name, f"{metric.name} of the best", 1)


def _curves(results: Results) -> dict[str, BudgetCurve]:
    trials = results.trials
    if trials.empty:
        return {}
    complete = trials[trials["status"].isin(["finished", "diverged"])]
    complete = complete[complete["sampler"] == RANDOM]
    better = metric_of(trials).better
    return {
        str(text): budget_curve([float(score) for score in some["score"]], better)
        for text, some in complete.groupby("strategy")
    }


def _trials(curve: BudgetCurve) -> Any:
    return np.arange(1, len(curve.mean) + 1)


def _legend(none: bool, others: bool) -> list[Line2D | Patch]:
    soft = page().style.soft
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=soft, linewidth=pt(1.4), label="this strategy"),
        Patch(color=soft, alpha=0.3, label="10 to 90 %"),
    ]
    if none:
        handles.append(Line2D([], [], color=page().style.ink, linestyle=(0, (4, 2)), label="none"))
    if others:
        handles.append(Line2D([], [], color=page().style.faint, label="the others"))
    return handles
