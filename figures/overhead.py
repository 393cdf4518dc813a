"""What does each strategy cost? A clip call beside norm's, its share of a training step, memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from gclip.errors import UsageError

from ._looks import looks
from ._page import page
from ._rows import row_height
from ._style import caption, extent, inches, letters, of_results, pt, room, title, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.results import Results


USUAL = False


def applies(results: Results) -> bool:
    """Whether these are measurements of the study ``overhead``."""
    return "ratio" in results.table and "call_us" in results.table


@of_results
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Rows are strategies, the cheapest on top.

    Args:
        results: of the study ``overhead``.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: these are no such measurements.
    """
    if not applies(results):
        raise UsageError("what clipping costs is measured by gclip study run overhead")
    rows: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items()}
        for row in results.table.to_dict("records")
    ]
    look = looks([row["strategy"] for row in rows])
    colours = [look[row["strategy"]].colour for row in rows]
    wide = inches(figure) > 5
    labels = [_name(row, letters(0.26)) for row in rows]
    high = row_height(labels, 0.17) * len(rows)
    figure = room(figure, 0.35 + (high if wide else 2 * high + 0.4))
    shape = (1, 2) if wide else (2, 1)
    left, right = figure.subplots(*shape, sharey=True)
    heights = range(len(rows))
    # What costs nothing at all has no place on a logarithm.
    ratios = [max(float(row["ratio"]), 0.01) for row in rows]
    left.barh(heights, [r - 1 for r in ratios], left=1.0, color=colours, height=0.62, linewidth=0)
    left.axvline(1, color=page().style.ink, linewidth=pt(0.9))
    left.set_xscale("log")
    low, high_ratio = min(*ratios, 0.8), max(*ratios, 1.25)
    left.set_xlim(low / (high_ratio / low) ** 0.05, high_ratio * (high_ratio / low) ** 0.5)
    subs = (1.0, 2.0, 5.0) if high_ratio / low < 100 else (1.0,)
    left.xaxis.set_major_locator(LogLocator(subs=subs))
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set_xlabel("Time of a clip call, times that of norm")
    for height, row, ratio in zip(heights, rows, ratios, strict=True):
        _beside(left, f"{row['ratio_text']}  ({row['call_text']})", max(ratio, 1.0), height)
    shares = [float(row["share"]) for row in rows]
    right.barh(heights, shares, color=colours, height=0.62, linewidth=0)
    for height, row in zip(heights, rows, strict=True):
        _beside(right, f"{row['share_text']} · {row['memory_text']}", float(row["share"]), height)
    right.set_xlim(0, max(*shares, 0.01) * 1.75)
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=""))
    right.set_xlabel("Share of a training step (%) · memory")
    left.set_yticks(heights, labels)
    left.set_ylim(len(rows) - 0.4, -0.6)
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    measured_on = next((str(row["measured_on"]) for row in rows if row.get("measured_on")), "")
    title(figure, "What clipping costs", measured_on)
    caption(
        figure,
        f"Medians of {extent(int(row['rounds']) for row in rows)} rounds in which the strategy, "
        "norm and a whole training step without clipping took turns.",
        "Memory: what the strategy keeps between steps; + where it still grew.",
    )
    return figure


def _beside(axes: Axes, text: str, x: float, y: float) -> None:
    """A number at the end of its bar."""
    axes.annotate(
        text, (x, y), xytext=(pt(3), 0), textcoords="offset points", va="center", fontsize="small"
    )


def _name(row: Mapping[str, Any], width: int) -> str:
    sides = {"update": "\n(on updates)", "sample": "\n(each example)"}
    return wrapped(str(row["strategy"]), width) + sides.get(str(row["side"]), "")
