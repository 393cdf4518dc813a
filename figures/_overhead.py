"""What does each strategy cost? A clip call beside norm's, its share of a training step, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from ._studies import looks_of
from ._style import BASELINE, canvas, caption, extent, styled, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled
def draw(rows: Sequence[Mapping[str, Any]], setting: str) -> Figure:
    """Rows are strategies, the cheapest on top.

    Args:
        rows: the table of the study ``overhead``.
        setting: what it was measured on.
    """
    look = looks_of([row["strategy"] for row in rows])
    colours = [look[row["strategy"]].colour for row in rows]
    figure = canvas(9.6, 1.95 + 0.33 * len(rows))
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1], sharey=True)
    heights = range(len(rows))
    # What costs nothing at all has no place on a logarithm.
    ratios = [max(row["ratio"], 0.01) for row in rows]
    left.barh(heights, [r - 1 for r in ratios], left=1.0, color=colours, height=0.62)
    left.axvline(1, color=BASELINE, linewidth=1.1)
    left.set_xscale("log")
    low, high = min(*ratios, 0.8), max(*ratios, 1.25)
    left.set_xlim(low / (high / low) ** 0.05, high * (high / low) ** 0.45)
    left.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,)))
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set_xlabel("Time of a clip call, times that of norm")
    for height, row, ratio in zip(heights, rows, ratios, strict=True):
        _beside(left, f"{row['ratio_text']}  ({row['call_text']})", max(ratio, 1.0), height)
    left.set_yticks(heights, [_name(row) for row in rows])
    left.set_ylim(len(rows) - 0.4, -0.6)
    shares = [row["share"] for row in rows]
    right.barh(heights, shares, color=colours, height=0.62)
    for height, row in zip(heights, rows, strict=True):
        label = f"{row['share_text']} · {row['memory_text']}"
        _beside(right, label, row["share"], height)
    right.set_xlim(0, max(*shares, 0.01) * 1.65)
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))
    right.set_xlabel("Share of a training step (%) · memory")
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    figure.suptitle(f"What clipping costs\n{setting}", x=0.01, ha="left", fontsize=11)
    caption(
        figure,
        f"Medians of {extent(row['rounds'] for row in rows)} rounds in which the strategy, norm "
        "and a whole training step without clipping took turns.",
        "Memory: what the strategy keeps between steps; + where it still grew.",
    )
    return figure


def _beside(axes: Axes, text: str, x: float, y: float) -> None:
    """A number at the end of its bar."""
    axes.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5
    )


def _name(row: Mapping[str, Any]) -> str:
    sides = {"update": "\n(on updates)", "sample": "\n(each example)"}
    return wrapped(row["strategy"], 34) + sides.get(row["side"], "")
