"""How high a learning rate does clipping allow? The score over the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gclip.results.comparable import scored_runs
from gclip.results.frames import ordered
from gclip.results.metrics import is_accuracy, metric_of
from gclip.results.trained import RULE_OF_OTHERS

from ._metrics import axis_label, mark_worst, whole_range, worst_of
from ._studies import columns_for, log_axis, looks_of, means, points
from ._style import BASELINE, canvas, caption, extent, panels, styled, title, wrapped

if TYPE_CHECKING:
    import pandas as pd

WIDE, HIGH = 2.75, 2.15


@styled
def draw(runs: pd.DataFrame, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel a strategy, ``none`` in every one.

    Args:
        runs: one row a run: `strategy`, `rate`, `seed`, `status`, `score` or `accuracy`.
        rows: the table of the study ``lr_ceiling``: `strategy`, `ceiling`, `ceiling_is_least`.
    """
    scored, metric = scored_runs(runs), metric_of(runs)
    by_strategy = {row["strategy"]: row for row in rows}
    strategies = ordered(list(by_strategy))
    look = looks_of(strategies)
    columns = columns_for(len(strategies))
    lines = -(-len(strategies) // columns)
    figure = canvas(max(6.6, WIDE * columns + 0.4), 1.7 + HIGH * lines)
    grid = panels(figure, len(strategies), columns, sharex=True, sharey=True)
    none = means(scored[scored["strategy"] == "none"], "rate")
    for axes, text in zip(grid, strategies, strict=True):
        colour = look[text].colour
        own = scored[scored["strategy"] == text]
        ceiling = by_strategy[text]["ceiling"]
        low_rate, high_rate = runs["rate"].min(), runs["rate"].max()
        if ceiling is not None:
            axes.axvspan(low_rate / 2, ceiling, color=colour, alpha=0.09, linewidth=0, zorder=0)
            axes.axvline(ceiling, color=colour, linewidth=1.3, linestyle=(0, (4, 2)))
        if text != "none":
            axes.plot(none[0], none[1], color=BASELINE, linewidth=1, alpha=0.7)
        at, middle, low, high = means(own, "rate")
        axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(at, middle, color=colour, linewidth=1.5)
        points(axes, own, "rate", colour)
        axes.set_title(f"{wrapped(text, 34)}\n{_ceiling(by_strategy[text])}", pad=5, fontsize=8.5)
        axes.spines["top"].set(color=colour, linewidth=3)
        whole_range(axes, metric)
        mark_worst(axes, metric)
        log_axis(axes, low_rate, high_rate)
        margin = (high_rate / low_rate) ** 0.05
        axes.set_xlim(low_rate / margin, high_rate * margin)
    figure.supylabel(axis_label("Validation", metric), fontsize=9)
    for axes in grid[-columns:]:
        axes.set_xlabel("Learning rate")
    figure.legend(handles=_legend(), loc="outside upper right", ncols=4)
    title(figure, "Highest stable learning rate", runs)
    rule = "at least half of the strategy's best"
    if not is_accuracy(metric):
        rule = f"better than {RULE_OF_OTHERS} of the strategy"
    counts = scored.groupby(["strategy", "rate"]).size()
    caption(
        figure,
        f"n = {extent(counts)} seeds at each learning rate." if len(counts) else "",
        f"Stable (shaded): no seed diverged and the mean is {rule}. "
        "Lines: mean; bands: from the lowest to the highest run. "
        f"Diverged runs score {worst_of(metric)}.",
    )
    return figure


def _ceiling(row: Mapping[str, Any]) -> str:
    if row["ceiling"] is None:
        return "nowhere stable"
    end = " and perhaps beyond" if row["ceiling_is_least"] else ""
    return f"stable up to {row['ceiling']:g}{end}"


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], linestyle="", marker="o", markersize=4, color="#888888", label="a run"),
        Line2D([], [], linestyle="", marker="x", markersize=4, color="#888888", label="diverged"),
        Line2D([], [], color=BASELINE, linewidth=1, label="none"),
        Line2D([], [], color="#888888", linestyle=(0, (4, 2)), label="ceiling"),
    ]
