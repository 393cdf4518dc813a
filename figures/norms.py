"""What does each strategy do to the gradients? Their norm before and after, and the limit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
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
    from gclip.results import Results

# Not strategy colours: here a colour is a quantity. Blue and orange differ for all eyes.
QUANTITIES: dict[str, tuple[str, str, Any]] = {
    "norm": ("#4c9be8", "before clipping", "-"),
    "clipped_norm": ("#c44e00", "after clipping", "-"),
    "limit": ("", "limit (one for the whole model)", "--"),
}
LOW, HIGH = 0.1, 0.9


def applies(results: Results) -> bool:
    """Whether these are runs of a comparison; a study's have figures of their own."""
    return not results.study


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A panel a strategy, and a player where runs train several, on the same logarithmic axis.

    Args:
        results: the runs.
        figure: draw into it; else into one of its own.
    """
    look = looks(results.strategies)
    shown = _panels(results)
    count = len(shown)
    columns = columns_for(count, 1.35, figure)
    rows = -(-count // columns)
    steps, width = _thinned(results.steps, 60 if count > 12 else 100)
    figure = room(figure, 0.45 + 1.25 * rows)
    grid = panels(figure, count, columns, sharex=True, sharey=True)
    for axes, (strategy, player) in zip(grid, shown, strict=True):
        own = steps[(steps["strategy"] == strategy) & (steps["player"] == player)]
        _panel(axes, own)
        if not np.isfinite(own["limit"]).any():
            style, behind = page().style, {"alpha": 0.8, "pad": 1.0, "linewidth": 0}
            axes.text(0.97, 0.95, no_limit(strategy), transform=axes.transAxes, ha="right",
                      va="top", fontsize="small", color=style.soft,
                      bbox={**behind, "facecolor": style.ground})  # fmt: skip
        runs = results.runs[results.runs["strategy"] == strategy]
        of = f"{player}: " if player else ""
        name = wrapped(f"{of}{strategy}", letters(0.86 / columns, figure=figure))
        axes.set_title(f"{name}\n{counted(runs)}", fontsize="small")
        axes.spines["top"].set(color=look[strategy].colour, linewidth=pt(2.2))
    grid[0].set_yscale("log")
    grid[0].set_ylim(*_range(steps))
    low, high = grid[0].get_ylim()
    if high / low < 3000:  # few powers of ten: label 3, 30 … as well, in plain numbers
        grid[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        grid[0].yaxis.set_major_formatter("{x:g}")
    else:
        grid[0].yaxis.set_major_locator(LogLocator(numticks=6))
    grid[0].yaxis.set_minor_formatter(NullFormatter())
    grid[0].xaxis.set_major_locator(MaxNLocator(3, integer=True))
    if len(steps):
        grid[0].set_xlim(0, float(steps["step"].max()) or 1)
    updates = _on_updates(results.strategies)
    what = "Gradient norm" if not updates else "Norm of gradient or update"
    side_label(figure, f"{what}, whole model (L2)")
    handles = [
        Line2D([], [], color=colour or page().style.ink, linestyle=dash, label=label)
        for colour, label, dash in QUANTITIES.values()
    ]
    legend(figure, handles)
    title(figure, f"{what} over training", results.runs)
    for axes in grid[-columns:]:
        axes.set_xlabel("Step")
    note = f"Of the optimizer's update, not the gradient: {', '.join(updates)}." if updates else ""
    caption(figure, *_notes(results.runs, steps, width), note)
    return figure


def _panels(results: Results) -> list[tuple[str, str]]:
    """A panel for each strategy; where runs train several players, for each of those."""
    players = list(dict.fromkeys(results.steps["player"])) or [""]
    return [(strategy, player) for strategy in results.strategies for player in players]


def _on_updates(strategies: Iterable[str]) -> list[str]:
    """Those that clip, and so record, the optimizer's update."""
    from gclip.clipping.parameters import resolve

    on_updates = []
    for spelling in strategies:
        try:
            parts = resolve(spelling)
        except UsageError:  # of a plugin that is not loaded here
            continue
        if any(part.side == "update" for part in parts):
            on_updates.append(spelling)
    return on_updates


def _thinned(steps: pd.DataFrame, points: int) -> tuple[pd.DataFrame, int]:
    """Medians of each run over blocks of steps, at most ``points`` of them, and their width."""
    if steps.empty:
        return steps, 1
    finite = steps.assign(**{name: _positive(steps[name]) for name in QUANTITIES})
    end = int(steps["step"].max())
    already = int(steps["step"][steps["step"] > 0].min()) if end else 1
    width = already * max(1, -(-(end // already + 1) // points))
    finite["step"] = finite["step"] // width * width
    how = {**dict.fromkeys(QUANTITIES, "median"), "finite": "mean"}
    return finite.groupby(["strategy", "player", "key", "step"], as_index=False).agg(how), width


def _positive(values: pd.Series[float]) -> pd.Series[float]:
    """Zero (all was clipped away, or skipped) and infinity have no place on a logarithm."""
    return values.where(np.isfinite(values) & (values > 0))


def _notes(runs: pd.DataFrame, steps: pd.DataFrame, width: int) -> list[str]:
    notes = [
        f"Lines: median over seeds{f' of medians over {width} steps' if width > 1 else ''};",
        f"bands: 10 to 90 % of the seeds; {seeds(runs)}.",
    ]
    infinite = 1.0 - float(steps["finite"].mean()) if len(steps) else 0.0
    if infinite > 0:
        notes.append(f"Steps with gradients that are not finite ({infinite:.1%}) have no norm.")
    if (runs["status"] == "diverged").any():
        notes.append("A run that diverged ends where it stopped.")
    return notes


def _panel(axes: Axes, steps: pd.DataFrame) -> None:
    for name, (colour, _, dash) in QUANTITIES.items():
        groups = steps[name].groupby(steps["step"])
        middle = groups.median()
        if middle.isna().all():
            continue
        thick = pt(1.6 if name == "norm" else 0.9)
        colour = colour or page().style.ink
        axes.plot(middle.index, middle, color=colour, linestyle=dash, linewidth=thick)
        low, high = groups.quantile(LOW), groups.quantile(HIGH)
        axes.fill_between(middle.index, low, high, color=colour, alpha=0.18, linewidth=0)


def _range(steps: pd.DataFrame) -> tuple[float, float]:
    """An axis for nearly everything: one exploding run must not flatten all other panels."""
    values = steps[list(QUANTITIES)].to_numpy(dtype=float).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.1, 10.0
    low, middle, high = (float(q) for q in np.quantile(values, [0.005, 0.5, 0.995]))
    return max(low, middle / 1e5) / 1.5, min(high, middle * 1e5) * 1.5
