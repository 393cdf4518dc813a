"""How often is a run at least so good? The share of runs that reach a score, over the score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from gclip.results.frames import ordered
from gclip.results.metrics import metric_of
from gclip.training.metric import Metric

from ._compared import is_compared, require
from ._looks import Look, looks
from ._metrics import axis_label, format_axis, worst_of
from ._page import page
from ._same import together
from ._style import (
    FEW,
    caption,
    columns_for,
    counted,
    finished,
    legend,
    letters,
    panels,
    pt,
    room,
    seeds,
    side_label,
    split,
    title,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from gclip.results import Results


USUAL = False


def applies(results: Results) -> bool:
    """Whether these are at least two strategies with several runs each."""
    return is_compared(results)


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Up to eight strategies share a panel; more have one each over all others in grey.

    Agarwal et al. (2021), arXiv:2108.13264: a curve that lies higher is better, one that crosses
    another is better in some runs and worse in others.

    Args:
        results: of a comparison.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: these are not runs of a comparison.
    """
    runs = require(results)
    metric, strategies = metric_of(runs), ordered(runs["strategy"])
    look = looks(strategies)
    few = len(strategies) <= FEW
    columns = 1 if few else columns_for(len(strategies), 0.98, figure)
    count = 1 if few else len(strategies)
    rows = -(-count // columns)
    figure = room(figure, 1.9 if few else 0.45 + 1.05 * rows)
    grid = panels(figure, count, columns, sharex=True, sharey=True)
    for place, axes in enumerate(grid):
        if few:
            for text in reversed(strategies):
                _curve(axes, runs, text, metric, look[text])
        else:
            own = strategies[place]
            others = [_steps(runs, text, metric) for text in strategies if text != own]
            faint = page().style.faint
            axes.add_collection(LineCollection(others, colors=faint, linewidths=pt(0.4), zorder=1))
            _curve(axes, runs, own, metric, look[own])
            name = wrapped(own, letters(0.86 / columns, figure=figure))
            axes.set_title(name, fontsize="small")
            axes.spines["top"].set(color=look[own].colour, linewidth=pt(2.2))
        axes.set(xlabel="", ylabel="")
    way = "at least" if metric.better == "higher" else "at most"
    grid[0].set_xlim(*_ends(runs["score"]))
    grid[0].set_ylim(-0.02, 1.02)
    grid[0].yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    format_axis(grid[0].xaxis, metric, 0)
    grid[0].locator_params(axis="x", nbins=4)
    side_label(figure, f"Runs with {way} so much (%)")
    for axes in grid[-columns:]:
        axes.set_xlabel(axis_label(split(runs), metric))
    if few:
        legend(figure, [
            Line2D([], [], color=look[text].colour, linestyle=look[text].dashes,
                   label=f"{wrapped(text)} ({counted(runs[runs['strategy'] == text])})")
            for text in strategies
        ])  # fmt: skip
    title(figure, "Performance profile", runs)
    caption(
        figure,
        f"The share of a strategy's runs that score {way} what the axis says; {seeds(runs)}, so "
        "each step is one run.",
        f"Diverged runs score {worst_of(metric)} and count." if _diverged(runs) else "",
        "" if few else "Grey: the other strategies.",
        together(results) if "form" not in runs else "",
    )
    return figure


def _diverged(runs: pd.DataFrame) -> bool:
    return bool((runs["status"] == "diverged").any())


def _curve(axes: Axes, runs: pd.DataFrame, text: str, metric: Metric, look: Look) -> None:
    sns.ecdfplot(
        x=runs.loc[runs["strategy"] == text, "score"], complementary=metric.better == "higher",
        ax=axes, legend=False, color=look.colour, linestyle=look.dashes, linewidth=pt(1.3),
        zorder=3,
    )  # fmt: skip


def _steps(runs: pd.DataFrame, text: str, metric: Metric) -> NDArray[Any]:
    """The same curve as points of a line, ``(points, 2)``."""
    scores = np.sort(runs.loc[runs["strategy"] == text, "score"].to_numpy(dtype=float))
    shares = np.arange(len(scores) + 1) / len(scores)
    if metric.better == "higher":
        shares = 1 - shares
    return np.column_stack([np.repeat(scores, 2), np.repeat(shares, 2)[1:-1]])


def _ends(scores: pd.Series[float]) -> tuple[float, float]:
    low, high = float(np.min(scores)), float(np.max(scores))
    margin = 0.03 * (high - low) or 0.03 * abs(high) or 0.01
    return low - margin, high + margin
