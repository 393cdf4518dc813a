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

from ._style import caption, counted, finished, looks, panels, room, seeds, title, wrapped

if TYPE_CHECKING:
    from gclip.results import Results

# Not strategy colours: here a colour is a quantity. Blue and orange differ for all eyes.
QUANTITIES: dict[str, tuple[str, str, Any]] = {
    "norm": ("#4c9be8", "before clipping", "-"),
    "clipped_norm": ("#c44e00", "after clipping", "-"),
    "limit": ("#000000", "limit (one for the whole model)", "--"),
}
LOW, HIGH = 0.1, 0.9


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
    columns = min(count, 3 if count <= 6 else 4 if count <= 12 else 6)
    rows = -(-count // columns)
    small = columns == 6
    steps, width = _thinned(results.steps, 60 if small else 100)
    wide, high = (2.25, 1.8) if small else (3.1, 2.3)
    figure = room(figure, max(8.5, wide * columns + 0.6), 1.6 + high * rows)
    grid = panels(figure, count, columns, sharex=True, sharey=True)
    for axes, (strategy, player) in zip(grid, shown, strict=True):
        _panel(axes, steps[(steps["strategy"] == strategy) & (steps["player"] == player)])
        runs = results.runs[results.runs["strategy"] == strategy]
        of = f"{player}: " if player else ""
        name = f"{of}{wrapped(strategy, 28 if small else 36)}\n{counted(runs)}"
        axes.set_title(name, fontsize=7 if small else 8, pad=5)
        axes.spines["top"].set(color=look[strategy].colour, linewidth=3)
    grid[0].set_yscale("log")
    grid[0].set_ylim(*_range(steps))
    low, high = grid[0].get_ylim()
    if high / low < 3000:  # few powers of ten: label 3, 30 … as well, in plain numbers
        grid[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        grid[0].yaxis.set_major_formatter("{x:g}")
    else:
        grid[0].yaxis.set_major_locator(LogLocator(numticks=6))
    grid[0].yaxis.set_minor_formatter(NullFormatter())
    grid[0].xaxis.set_major_locator(MaxNLocator(4, integer=True))
    updates = _on_updates(results.strategies)
    what = "Gradient norm" if not updates else "Norm of gradient or update"
    figure.supylabel(f"{what}, whole model (L2)", fontsize=9)
    handles = [
        Line2D([], [], color=colour, linestyle=dash, label=label)
        for colour, label, dash in QUANTITIES.values()
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=3)
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
        thick = 2.0 if name == "norm" else 1.1
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
