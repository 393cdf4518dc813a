"""How likely is a run to beat one of the baseline? The probability of improvement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import PercentFormatter

from gclip.results.frames import ordered
from gclip.results.intervals import improvement_interval
from gclip.results.metrics import metric_of
from gclip.results.paired import probability_of_improvement

from ._compared import baseline_of, is_compared, require
from ._looks import looks
from ._page import page
from ._rows import diamond, row_height
from ._style import canvas, caption, extent, finished, inches, letters, pt, title, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.results import Results


USUAL = False


def applies(results: Results) -> bool:
    """Whether these are at least two strategies with several runs each."""
    return is_compared(results)


@finished
def draw(results: Results, ax: Axes | None = None) -> Figure | SubFigure:
    """Rows are strategies, the most likely to improve on top; 50 % is as good as the baseline.

    Args:
        results: of a comparison.
        ax: draw into these axes, without the caption; else into a figure of its own.

    Raises:
        UsageError: these are not runs of a comparison.
    """
    runs = require(results)
    metric, baseline = metric_of(runs), baseline_of(runs)
    theirs = runs.loc[runs["strategy"] == baseline, "score"]
    found = {}
    for text in ordered(runs["strategy"]):
        if text == baseline:
            continue
        own = runs.loc[runs["strategy"] == text, "score"]
        chance = probability_of_improvement(own, theirs, metric.better)
        found[text] = improvement_interval(chance, len(own), len(theirs))
    order = sorted(found, key=lambda text: (-found[text].value, text))
    look = looks(order)
    labels = [wrapped(text, letters(0.26)) for text in order]
    height = row_height(labels, 0.2)
    axes = canvas(0.55 + height * len(order)).subplots() if ax is None else ax
    figure = axes.figure
    ink = page().style.ink
    axes.axvline(0.5, color=ink, linewidth=pt(0.8))
    for place, text in enumerate(order):
        each = found[text]
        axes.hlines(place, each.low, each.high, color=ink, linewidth=pt(1.2), zorder=3)
        diamond(axes, each.value, place, look[text].colour)
    axes.set_yticks(range(len(order)), labels)
    right = axes.twinx()
    gap = " " if inches() > 5 or height < 0.24 else "\n"
    right.set_yticks(
        range(len(order)),
        [
            f"{100 * each.value:.0f}{gap}[{100 * each.low:.0f}, {100 * each.high:.0f}]"
            for each in (found[text] for text in order)
        ],
    )
    for side in (axes, right):
        side.set_ylim(len(order) - 0.4, -0.6)
        side.grid(visible=False, axis="y")
        side.tick_params(axis="y", length=0)
    axes.set_xlim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"Probability of improving on {baseline} (%)")
    if ax is not None:
        return figure
    title(figure, "Probability of improvement", runs)
    counts = runs.groupby("strategy").size()
    caption(
        figure,
        f"The chance that a run is better than one of {baseline}, over all pairs of their runs; "
        f"ties count half. n = {extent(counts)} runs a strategy.",
        "Bars: 95 % interval (Newcombe's fifth method), which has a width at 0 and at 100 %, too.",
    )
    return figure
