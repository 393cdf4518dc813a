"""How often does each strategy act? The share of limited steps, over all and over training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gclip.clipping.verdicts import DEFINITION, verdict_of
from gclip.results.table import shares_of
from gclip.text.table import fill

from ._looks import looks
from ._page import page
from ._rows import diamond, row_height, spread
from ._style import caption, dot, finished, inches, letters, room, seeds, title, wrapped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from gclip.results import Results

CELLS = 48


def applies(results: Results) -> bool:
    """Whether these are runs of a comparison; a study's have figures of their own."""
    return not results.study


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
    wide = inches(figure) > 5
    labels = [wrapped(strategy, letters(0.22)) for strategy in order]
    height = row_height(labels, 0.22)
    if wide:
        figure = room(figure, 0.55 + height * len(order))
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
    else:  # one above the other, each with its names
        high = height * len(order)
        figure = room(figure, 1.35 + 2 * height * len(order))
        halves: Any = figure.subfigures(2, 1, height_ratios=[0.5 + high, 0.9 + high])
        above, below = halves
        left, right = above.subplots(), below.subplots()
    heights = spread(runs)
    for row, strategy in enumerate(order):
        own = runs[runs["strategy"] == strategy]
        rates, at, colour = (
            own["limited_rate"],
            row + heights[own.index],
            look[strategy].colour,
        )
        left.scatter(own["clip_rate"].mean(), row, s=dot(45), marker="|", color=page().style.soft)
        left.scatter(rates, at, s=dot(7), color=colour, alpha=0.7, linewidths=0)
        if rates.notna().any():
            diamond(left, rates.mean(), row, colour)
    verdicts = [_verdict(runs[runs["strategy"] == strategy]) for strategy in order]
    left.set_yticks(range(len(order)), labels)
    if wide:
        right.set_yticks(range(len(order)), ["\n".join(fill(text, 20)) for text in verdicts])
    else:
        right.set_yticks(range(len(order)), labels)
        names = left.twinx()  # only carries the verdicts
        names.set_yticks(range(len(order)), ["\n".join(fill(text, 18)) for text in verdicts])
        names.set_ylim(len(order) - 0.5, -0.5)
        names.tick_params(axis="y", length=0)
        names.grid(visible=False)
    for axes in (left, right):
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
    left.set_xlim(-0.04, 1.04)
    left.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    left.set_xlabel("Steps limited in all (%)")
    left.grid(visible=False, axis="y")
    _course(figure if wide else below, right, results.steps, order, wide)
    title(figure, "How often each strategy limits a step", results.runs)
    caption(
        figure,
        f"Points: one run each; diamonds: mean; {seeds(runs)}. Grey ticks: steps in which anything "
        "was clipped, however little. The verdict is on all runs together.",
        f"{DEFINITION[0].upper()}{DEFINITION[1:]}",
        "The map: mean over the runs still training (grey: none is left, or no norm is finite).",
    )
    return figure


def _verdict(runs: pd.DataFrame) -> str:
    shares = shares_of(runs)
    rate = shares["limited_rate"]
    verdict = verdict_of(**shares) or "no verdict"
    return verdict if math.isnan(rate) else f"{verdict}, {100 * rate:.1f} %"


def _course(
    figure: Figure | SubFigure, axes: Axes, steps: pd.DataFrame, order: list[str], wide: bool
) -> None:
    """A map: strategy by time, the share of limited steps as shade."""
    axes.set_facecolor(page().style.faint)
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
        image,
        ax=axes,
        aspect=30,
        pad=0.02,
        location="right" if wide else "bottom",
        format=PercentFormatter(1, symbol=""),
    )
    bar.set_label("Steps limited (%)")
