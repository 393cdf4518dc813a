"""Who is in front, seed by seed? Mean ranks, and how far apart two must be to differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from gclip.results.metrics import metric_of
from gclip.training.metric import Metric

from ._compared import compared, is_compared, require
from ._looks import looks
from ._page import page
from ._rows import diamond, row_height
from ._style import canvas, caption, dot, finished, letters, pt, title, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.results import Results

LEVEL = 0.05


USUAL = False


def applies(results: Results) -> bool:
    """Whether these are at least three strategies on shared seeds."""
    return is_compared(results, 3, 2) and len(ranks(results)) >= 2


@finished
def draw(results: Results, ax: Axes | None = None) -> Figure | SubFigure:
    """Rows are strategies, the best mean rank on top; its bar is half the critical difference to
    either side, so that those whose bars overlap are not shown to differ.

    Demšar (2006), JMLR 7, with seeds of one setting in place of data sets.

    Args:
        results: of a comparison.
        ax: draw into these axes, without the caption; else into a figure of its own.

    Raises:
        UsageError: these are not runs of a comparison of at least three strategies.
    """
    runs = require(results, 3, 2)
    table = _ranks_in(runs)
    found = Ranked.of(table)
    order = list(found.means.index)
    look = looks(order)
    labels = [wrapped(text, letters(0.3)) for text in order]
    height = row_height(labels, 0.2)
    axes = canvas(0.65 + height * len(order)).subplots() if ax is None else ax
    figure = axes.figure
    half = found.critical / 2
    for place, text in enumerate(order):
        mean = float(found.means[text])
        ends = max(1.0, mean - half), min(float(len(order)), mean + half)
        axes.hlines(place, *ends, color=look[text].colour, linewidth=pt(5), alpha=0.3)
        counts = table[text].value_counts()
        axes.scatter(counts.index, [place] * len(counts), s=[dot(3 + 3 * n) for n in counts],
                     color=look[text].colour, alpha=0.55, linewidths=0)  # fmt: skip
        diamond(axes, mean, place, look[text].colour)
    axes.axvline(float(found.means.iloc[0]) + half, color=page().style.soft, linewidth=pt(0.7),
                 linestyle=":")  # fmt: skip
    axes.set_yticks(range(len(order)), labels)
    right = axes.twinx()
    right.set_yticks(range(len(order)), [f"{found.means[text]:.1f}" for text in order])
    for side in (axes, right):
        side.set_ylim(len(order) - 0.4, -0.6)
        side.grid(visible=False, axis="y")
        side.tick_params(axis="y", length=0)
    margin = 0.03 * len(order)
    axes.set_xlim(1 - margin, len(order) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("Rank (1 is best)")
    if ax is not None:
        return figure
    title(figure, "Ranks over seeds", runs)
    p = "no test" if math.isnan(found.p) else f"p = {found.p:.2g}"
    caption(
        figure,
        f"n = {len(table)} seeds on which all {len(order)} were trained; dots: ranks, larger where "
        "more seeds gave them; ties share a rank. Diamonds: mean ranks.",
        f"Bars reach half the critical difference ({found.critical:.2f}, Nemenyi, 5 %) to either "
        "side: strategies whose bars overlap are not shown to differ. The dotted line: that is so "
        f"of the first and of those left of it. All alike: {p} (Friedman).",
    )
    return figure


@dataclass(frozen=True)
class Ranked:
    """Mean ranks, ascending, the critical difference of two, and Friedman's p-value."""

    means: pd.Series[float]
    critical: float
    p: float

    @classmethod
    def of(cls, table: pd.DataFrame) -> Ranked:
        """Of `ranks`."""
        n, k = table.shape
        means = table.mean().sort_values(kind="stable")
        q = float(stats.studentized_range.ppf(1 - LEVEL, k, math.inf)) / math.sqrt(2)
        critical = q * math.sqrt(k * (k + 1) / (6 * n))
        alike = bool((table.nunique(axis=1) == 1).all())
        p = math.nan if alike else float(stats.friedmanchisquare(*table.to_numpy().T).pvalue)
        return cls(means, critical, p)


def ranks(results: Results) -> pd.DataFrame:
    """The rank of each strategy (columns, by spelling) on each seed that all of them have."""
    return _ranks_in(compared(results))


def _ranks_in(runs: pd.DataFrame) -> pd.DataFrame:
    if runs.empty:
        return pd.DataFrame()
    metric: Metric = metric_of(runs)
    scores: pd.DataFrame = runs.pivot(index="seed", columns="strategy", values="score").dropna()
    return scores.rank(axis=1, ascending=metric.better == "lower")
