"""Where does an adaptive strategy set its limit? The limit over training, beside the norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from gclip.errors import UsageError

from ._looks import looks
from ._page import page
from ._scopes import no_limit
from ._style import (
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
    title,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.results import Results

LOW, HIGH = 0.1, 0.9
POINTS = 100


USUAL = False


def applies(results: Results) -> bool:
    """Whether some strategy's limit for the whole model changed over training."""
    return not results.study and bool(_adaptive(results.scored().steps))


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A panel an adaptive strategy: its limit in its colour, the norm before clipping in grey.

    Args:
        results: the runs.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: no limit for the whole model changed.
    """
    shown = _adaptive(results.steps)
    if not shown:
        raise UsageError(
            "no strategy among these runs has one limit for the whole model that changes over "
            "training"
        )
    look = looks(shown)
    columns = columns_for(len(shown), 1.35, figure)
    rows = -(-len(shown) // columns)
    figure = room(figure, 0.55 + 1.25 * rows)
    grid = panels(figure, len(shown), columns, sharex=True, sharey=True)
    every: list[float] = []
    for axes, text in zip(grid, shown, strict=True):
        own = _blocks(results.steps[results.steps["strategy"] == text])
        every += _line(axes, own, "norm", page().style.soft, 0.9)
        every += _line(axes, own, "limit", look[text].colour, 1.5)
        runs = results.runs[results.runs["strategy"] == text]
        name = wrapped(text, letters(0.86 / columns, figure=figure))
        axes.set_title(f"{name}\n{counted(runs)}", fontsize="small")
        axes.spines["top"].set(color=look[text].colour, linewidth=pt(2.2))
    grid[0].set_yscale("log")
    low, high = (float(q) for q in np.quantile(every, [0.005, 0.995]))
    grid[0].set_ylim(low / 1.3, high * 1.3)
    if high / low < 300:
        grid[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        grid[0].yaxis.set_major_formatter("{x:g}")
    grid[0].yaxis.set_minor_formatter(NullFormatter())
    grid[0].xaxis.set_major_locator(MaxNLocator(3, integer=True))
    grid[0].set_xlim(0, float(results.steps["step"].max()) or 1)
    for axes in grid[-columns:]:
        axes.set_xlabel("Step")
    side_label(figure, "Limit and gradient norm (L2)")
    soft = page().style.soft
    legend(
        figure,
        [
            Line2D([], [], color=soft, linewidth=pt(1.5), label="limit (coloured)"),
            Line2D([], [], color=soft, linewidth=pt(0.9), label="norm before clipping (grey)"),
            Patch(color=soft, alpha=0.3, label="10 to 90 % of seeds"),
        ],
    )
    title(figure, "The limits that strategies set", results.runs)
    others = [f"{s} ({_why(results.steps, s)})" for s in results.strategies if s not in shown]
    caption(
        figure,
        f"Lines: median over seeds; {seeds(results.runs)}. One limit for the whole model.",
        f"Left out: {', '.join(others)}." if others else "",
    )
    return figure


def _adaptive(steps: pd.DataFrame) -> list[str]:
    """Strategies whose finite limit is not the same all the time within a run."""
    if "limit" not in steps or steps.empty:
        return []
    known = steps[np.isfinite(steps["limit"].astype(float)) & (steps["limit"] > 0)]
    if known.empty:
        return []
    spread: Any = known.groupby(["strategy", "key"])["limit"].agg(lambda v: v.max() / v.min())
    most = spread.groupby("strategy").max()
    return [str(text) for text in sorted(most.index) if most[text] > 1.0001]


def _why(steps: pd.DataFrame, strategy: str) -> str:
    own = steps.loc[steps["strategy"] == strategy, "limit"].astype(float)
    return "a constant" if np.isfinite(own).any() else no_limit(strategy)


def _blocks(steps: pd.DataFrame) -> pd.DataFrame:
    """Medians of each run over blocks of steps, at most `POINTS` of them."""
    end = int(steps["step"].max()) + 1
    width = max(1, -(-end // POINTS))
    fine = steps.assign(
        step=steps["step"] // width * width,
        **{name: steps[name].astype(float).where(lambda v: np.isfinite(v) & (v > 0))
           for name in ("norm", "limit")},
    )  # fmt: skip
    return fine.groupby(["key", "step"], as_index=False)[["norm", "limit"]].median()


def _line(axes: Axes, blocks: pd.DataFrame, name: str, colour: str, width: float) -> list[float]:
    groups = blocks[name].groupby(blocks["step"])
    middle, low, high = groups.median(), groups.quantile(LOW), groups.quantile(HIGH)
    axes.plot(middle.index, middle, color=colour, linewidth=pt(width))
    axes.fill_between(middle.index, low, high, color=colour, alpha=0.2, linewidth=0)
    return [float(value) for value in middle if np.isfinite(value)]
