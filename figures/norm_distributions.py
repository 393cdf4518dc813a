"""How large are gradients, early and late? Their norms before and after clipping, by phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gclip.errors import UsageError

from ._looks import looks
from ._over import short
from ._page import page
from ._style import (
    caption,
    columns_for,
    counted,
    finished,
    left_out,
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

SIDES = {"norm": ("before clipping", "#4c9be8"), "clipped_norm": ("after clipping", "#c44e00")}
"""Blue and orange differ for all eyes; they are no strategy's here, but a quantity's."""

SHORT = ("1st", "2nd", "3rd")
TAIL = 0.002
MOST = 3000
"""Norms of a violin at most."""


USUAL = False


def applies(results: Results) -> bool:
    """Whether norms were recorded."""
    return not results.study and len(_norms(results.scored().steps)) > 0


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A panel a strategy: a violin for each third of training, before left, after right.

    Args:
        results: the runs.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: no norm was recorded.
    """
    norms = _norms(results.steps)
    if norms.empty:
        raise UsageError("no run has a gradient norm that a figure could show")
    shown = [text for text in results.strategies if (norms["strategy"] == text).any()]
    look = looks(shown)
    columns = columns_for(len(shown), 1.35, figure)
    rows = -(-len(shown) // columns)
    figure = room(figure, 0.55 + 1.2 * rows)
    grid = panels(figure, len(shown), columns, sharex=True, sharey=True)
    for axes, text in zip(grid, shown, strict=True):
        _violins(axes, norms[norms["strategy"] == text])
        runs = results.runs[results.runs["strategy"] == text]
        name = wrapped(text, letters(0.86 / columns, figure=figure))
        axes.set_title(f"{name}\n{counted(runs)}", fontsize="small")
        axes.spines["top"].set(color=look[text].colour, linewidth=pt(2.2))
    low, high = (float(q) for q in np.quantile(norms["log10"], [TAIL, 1 - TAIL]))
    margin = 0.03 * (high - low) or 0.1
    grid[0].set_ylim(low - margin, high + margin)
    grid[0].yaxis.set_major_locator(MaxNLocator(5, integer=high - low > 2.5))
    grid[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(10**value)))
    for axes in grid[-columns:]:
        axes.set_xlabel("Third of training")
    side_label(figure, "Gradient norm, whole model (L2)")
    legend(figure, [Patch(facecolor=colour, label=label) for label, colour in SIDES.values()])
    title(figure, "Gradient norms by phase of training", results.runs)
    infinite = 1.0 - float(results.steps["finite"].mean()) if len(results.steps) else 0.0
    caption(
        figure,
        f"Each violin: the norms of all steps of a third (of blocks of steps: their medians), "
        f"all seeds together, {seeds(results.runs)}; lines: quartiles. All violins are equally "
        f"wide; the axis leaves out the outermost {TAIL:.1%} at either end.",
        f"Steps with gradients that are not finite ({infinite:.1%}), and norms of 0, are left out."
        if infinite > 0
        else "",
        left_out([s for s in results.strategies if s not in shown], "no norm was recorded"),
    )
    return figure


def _norms(steps: pd.DataFrame) -> pd.DataFrame:
    """One row a norm: `strategy`, `phase`, `side`, `log10`."""
    if "norm" not in steps or steps.empty:
        return pd.DataFrame(columns=["strategy", "phase", "side", "log10"])
    end = steps.groupby("strategy")["step"].transform("max")
    phase = np.minimum(3 * steps["step"] // (end + 1), 2).astype(int)
    parts = [
        pd.DataFrame(
            {
                "strategy": steps["strategy"],
                "phase": [SHORT[each] for each in phase],
                "side": label,
                "norm": steps[name].astype(float),
            }
        )
        for name, (label, _) in SIDES.items()
    ]
    norms: pd.DataFrame = pd.concat(parts, ignore_index=True)
    norms = norms.loc[np.isfinite(norms["norm"]) & (norms["norm"] > 0)]
    return norms.assign(log10=np.log10(norms["norm"]))


def _violins(axes: Axes, norms: pd.DataFrame) -> None:
    every = -(-len(norms) // (MOST * len(SHORT) * len(SIDES)))
    sns.violinplot(
        data=norms.iloc[::every], x="phase", y="log10", hue="side", order=list(SHORT),
        hue_order=[label for label, _ in SIDES.values()],
        palette=[colour for _, colour in SIDES.values()], split=True, inner="quart", cut=0,
        density_norm="width", linewidth=pt(0.5), legend=False, ax=axes, gridsize=60, gap=0.06,
        saturation=1, linecolor=page().style.soft,
    )  # fmt: skip
    axes.set(xlabel="", ylabel="")
