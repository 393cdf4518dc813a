"""How often does each strategy act? The share of limited steps, over all and over training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gclip.clipping.verdicts import DEFINITION, verdict_of
from gclip.results.table import shares_of

from ._rows import spread
from ._style import caption, finished, looks, room, seeds, title, wrapped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from gclip.results import Results

CELLS = 48


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Rows are strategies, the busiest on top: seeds and verdict left, the course right.

    Args:
        results: the runs.
        figure: draw into it; else into one of its own.
    """
    runs = results.runs
    look = looks(results.strategies)
    means = runs.groupby("strategy")["limited_rate"].mean().fillna(-1.0)
    order = sorted(results.strategies, key=lambda name: (-means[name], name))
    figure = room(figure, 11.0, 1.9 + 0.4 * len(order))
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
    heights = spread(runs)
    for row, strategy in enumerate(order):
        own = runs[runs["strategy"] == strategy]
        rates, at, colour = (
            own["limited_rate"],
            row + heights[own.index],
            look[strategy].colour,
        )
        left.scatter(own["clip_rate"].mean(), row, s=90, marker="|", color="#888888")
        left.scatter(rates, at, s=14, color=colour, alpha=0.7, linewidths=0)
        left.scatter(rates.mean(), row, s=36, marker="D", color=colour, edgecolors="black")
    verdicts = [_verdict(runs[runs["strategy"] == strategy]) for strategy in order]
    left.set_yticks(range(len(order)), [wrapped(strategy, 36) for strategy in order])
    right.set_yticks(range(len(order)), verdicts)
    for axes in (left, right):
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
    left.set_xlim(-0.04, 1.04)
    left.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    left.set_xlabel("Steps limited in all (%)")
    left.grid(visible=False, axis="y")
    _course(figure, right, results.steps, order)
    title(figure, "How often each strategy limits a step", results.runs)
    caption(
        figure,
        f"Points: one run each; diamonds: mean; {seeds(runs)}. Grey ticks: steps in which anything "
        "was clipped, however little. In the middle: the verdict on all runs together.",
        f"{DEFINITION[0].upper()}{DEFINITION[1:]}",
        "Right: mean over the runs still training (grey: none is left, or no norm is finite).",
    )
    return figure


def _verdict(runs: pd.DataFrame) -> str:
    shares = shares_of(runs)
    rate = shares["limited_rate"]
    verdict = verdict_of(**shares) or "no verdict"
    return verdict if math.isnan(rate) else f"{verdict}, {100 * rate:.1f} %"


def _course(figure: Figure | SubFigure, axes: Axes, steps: pd.DataFrame, order: list[str]) -> None:
    """A map: strategy by time, the share of limited steps as shade."""
    axes.set_facecolor("#d9d9d9")
    axes.grid(visible=False)
    axes.set_xlabel("Step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if steps.empty:
        return
    times = np.sort(steps["step"].unique())
    cells = min(CELLS, len(times))
    # Whole blocks of steps to each cell, or some cells would hold twice as many as others.
    each = max(1, -(-len(times) // cells))
    cell = np.searchsorted(times, steps["step"]) // each
    shares = steps["limited"].groupby([steps["strategy"], cell]).mean().unstack()
    shares = shares.reindex(order)
    width = float(times[1] - times[0]) if len(times) > 1 else 1.0
    edges = np.arange(shares.shape[1] + 1) * each * width
    image = axes.pcolormesh(
        edges,
        np.arange(len(order) + 1) - 0.5,
        shares.to_numpy(dtype=float),
        cmap="YlGnBu",
        vmin=0,
        vmax=1,
        rasterized=True,
    )
    axes.hlines(np.arange(len(order) - 1) + 0.5, edges[0], edges[-1], color="white", linewidth=2)
    axes.set_xlim(edges[0], edges[-1])
    bar = figure.colorbar(
        image, ax=axes, aspect=30, pad=0.02, format=PercentFormatter(1, symbol="")
    )
    bar.set_label("Steps limited (%)")
