"""How high a learning rate does clipping allow? The score over the learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from gclip.errors import UsageError
from gclip.results.metrics import is_accuracy, metric_of, with_scores
from gclip.results.stability import ceiling_of
from gclip.results.trained import RULE_OF_OTHERS

from ._compared import ended, one_setting
from ._looks import looks
from ._metrics import axis_label, interval_of_mean, mark_worst, whole_range, worst_of
from ._over import log_axis, means, points
from ._page import page
from ._style import (
    caption,
    columns_for,
    extent,
    finished,
    legend,
    letters,
    panels,
    pt,
    room,
    side_label,
    split,
    title,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd

    from gclip.results import Results

FEWEST = 3


USUAL = False


def applies(results: Results) -> bool:
    """Whether strategies were trained at several learning rates, and nothing else was varied."""
    runs = ended(results)
    if "lr" not in runs or not one_setting(runs) or not len(runs) or len(results.trials):
        return False
    rates = _with_rates(runs)["rate"]
    return rates.nunique() >= (2 if "rate" in runs else FEWEST)


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A panel a strategy, ``none`` in every one.

    Args:
        results: runs of the study ``lr_ceiling``, or any of several learning rates.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: all runs have one learning rate.
    """
    runs, metric = with_scores(_with_rates(results.runs)), metric_of(results.runs)
    if runs["rate"].nunique() < 2:
        raise UsageError("all runs have one learning rate: gclip study run lr_ceiling has many")
    strategies = results.strategies
    look = looks(strategies)
    columns = columns_for(len(strategies), 1.35, figure)
    lines = -(-len(strategies) // columns)
    figure = room(figure, 0.55 + 1.35 * lines)
    grid = panels(figure, len(strategies), columns, sharex=True, sharey=True)
    none = means(runs[runs["strategy"] == "none"], "rate")
    low_rate, high_rate = float(runs["rate"].min()), float(runs["rate"].max())
    for axes, text in zip(grid, strategies, strict=True):
        colour = look[text].colour
        own = runs[runs["strategy"] == text]
        highest, beyond = ceiling_of(own, own["rate"])
        if highest is not None:
            axes.axvspan(low_rate / 2, highest, color=colour, alpha=0.09, linewidth=0, zorder=0)
            axes.axvline(highest, color=colour, linewidth=pt(1.1), linestyle=(0, (4, 2)))
        if text != "none":
            axes.plot(none[0], none[1], color=page().style.ink, linewidth=pt(0.8), alpha=0.7)
        at, middle, low, high = means(own, "rate")
        axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(at, middle, color=colour, linewidth=pt(1.2))
        points(axes, own, "rate", colour)
        width = letters(0.86 / columns, figure=figure)
        axes.set_title(f"{wrapped(text, width)}\n{_said(highest, beyond)}", fontsize="small")
        axes.spines["top"].set(color=colour, linewidth=pt(2.2))
    whole_range(grid[0], metric)
    for axes in grid:
        mark_worst(axes, metric)
    log_axis(grid[0], low_rate, high_rate)
    margin = (high_rate / low_rate) ** 0.03
    grid[0].set_xlim(low_rate / margin, high_rate * margin)
    side_label(figure, axis_label(split(runs), metric))
    for axes in grid[-columns:]:
        axes.set_xlabel("Learning rate")
    legend(figure, _legend())
    title(figure, "Highest stable learning rate", results.runs.drop(columns="lr", errors="ignore"))
    rule = "at least half of the strategy's best"
    if not is_accuracy(metric):
        rule = f"better than {RULE_OF_OTHERS} of the strategy"
    counts = runs.groupby(["strategy", "rate"]).size()
    caption(
        figure,
        f"n = {extent(counts)} seeds at each learning rate.",
        f"Stable (shaded): no seed diverged and the mean is {rule}. "
        f"Lines: mean; bands: its {interval_of_mean(metric)}. "
        f"Diverged runs score {worst_of(metric)}.",
    )
    return figure


def _with_rates(runs: pd.DataFrame) -> pd.DataFrame:
    return runs if "rate" in runs else runs.assign(rate=runs["lr"])


def _said(highest: float | None, beyond: bool) -> str:
    if highest is None:
        return "nowhere stable"
    return f"stable up to {highest:g}{' or more' if beyond else ''}"


def _legend() -> list[Line2D]:
    soft = page().style.soft
    return [
        Line2D([], [], linestyle="", marker="o", color=soft, label="a run"),
        Line2D([], [], linestyle="", marker="x", color=soft, label="diverged"),
        Line2D([], [], color=page().style.ink, linewidth=pt(0.8), label="none"),
        Line2D([], [], color=soft, linestyle=(0, (4, 2)), label="ceiling"),
    ]
