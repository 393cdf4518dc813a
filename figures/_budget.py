"""Which strategy is worth its tuning? The score over trials, and of winners on fresh seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gclip.results.comparable import scored_runs
from gclip.results.frames import ordered
from gclip.results.metric_text import score_text
from gclip.results.metrics import is_accuracy, metric_of, with_scores
from gclip.training.metric import ACCURACY, Metric

from ._metrics import (
    around,
    axis_label,
    clip_axis,
    format_axis,
    interval_of_mean,
    mark_worst,
    worst_of,
)
from ._rows import label_rows, row_points, spread, whisker
from ._studies import columns_for, looks_of
from ._style import BASELINE, canvas, caption, extent, panels, split, styled, title, wrapped

if TYPE_CHECKING:
    from gclip.results.budget import BudgetCurve
    from gclip.training import RunConfig

WIDE, HIGH = 2.75, 2.2


@styled
def curves(found: Mapping[str, BudgetCurve], base: RunConfig, metric: Metric = ACCURACY) -> Figure:
    """A panel a strategy, all the others in grey: the expected best of k random trials over k."""
    strategies = ordered(list(found))
    look = looks_of(strategies)
    columns = columns_for(len(strategies))
    lines = -(-len(strategies) // columns)
    figure = canvas(max(6.6, WIDE * columns + 0.4), 1.85 + HIGH * lines)
    grid = panels(figure, len(strategies), columns, sharex=True, sharey=True)
    every = {text: np.column_stack([_trials(c), c.mean]) for text, c in found.items()}
    lowest = min(float(curve.mean.min()) for curve in found.values())
    longest = max(len(curve.mean) for curve in found.values())
    for axes, text in zip(grid, strategies, strict=True):
        colour, curve = look[text].colour, found[text]
        others = [line for name, line in every.items() if name not in (text, "none")]
        axes.add_collection(LineCollection(others, colors="#c8c8c8", linewidths=0.8, zorder=1))
        if "none" in every and text != "none":
            axes.plot(*every["none"].T, color=BASELINE, linewidth=1.1, linestyle=(0, (4, 2)))
        axes.fill_between(
            _trials(curve), curve.low, curve.high, color=colour, alpha=0.17, linewidth=0
        )
        marker = "o" if len(curve.mean) == 1 else ""
        axes.plot(_trials(curve), curve.mean, color=colour, linewidth=1.8, marker=marker)
        axes.set_title(wrapped(text, 34), pad=5)
        axes.spines["top"].set(color=colour, linewidth=3)
        if is_accuracy(metric):
            axes.set_ylim(max(-0.02, lowest - 0.1), 1.02)
        else:
            clip_axis(axes, metric)
            mark_worst(axes, metric)
        axes.set_xlim(1 - 0.03 * longest, longest + 0.03 * longest)
        format_axis(axes.yaxis, metric, 0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    label = axis_label("Validation", metric).replace(metric.name, f"{metric.name} of the best", 1)
    figure.supylabel(label, fontsize=9)
    for axes in grid[-columns:]:
        axes.set_xlabel("Random trials")
    figure.legend(handles=_curve_legend(), loc="outside upper right", ncols=4)
    shared = pd.DataFrame([json.loads(base.to_json())]).drop(columns="lr")
    title(figure, "What a budget of trials buys", shared)
    caption(
        figure,
        f"n = {extent(len(curve.mean) for curve in found.values())} random trials "
        "a strategy, learning rate and fields together; diverged trials score "
        f"{worst_of(metric)}.",
        "Lines: the expected best of k of them; bands: from the 10 % least to the 10 % most lucky "
        "choices of k, cut off below. The best of many single runs looks better than it is.",
    )
    return figure


@styled
def final(rows: Sequence[Mapping[str, Any]], runs: pd.DataFrame) -> Figure:
    """Rows are tuned strategies on fresh seeds, the best on top: every run, and means.

    Args:
        rows: the table of the study ``budget``.
        runs: one row a run: `strategy`, `seed`, `status`, `score`.
    """
    shown = [row for row in rows if row["n"]]
    metric = metric_of(runs)
    runs = with_scores(scored_runs(runs)).reset_index(drop=True)
    look = looks_of([row["strategy"] for row in rows])
    figure = canvas(9.0, 1.95 + 0.42 * len(shown))
    axes = figure.subplots()
    axes.set_xlim(*around(runs["score"], metric))
    right = axes.twinx()
    heights = spread(runs)
    labels, texts = [], []
    for place, row in enumerate(shown):
        own = runs[runs["strategy"] == row["strategy"]]
        colour = look[row["strategy"]].colour
        row_points(axes, own, place + heights, colour, 20, 0.75)
        whisker(axes, place, own["score"], 1.6, metric)
        axes.scatter(row["score"], place, s=36, marker="D", color=colour, edgecolors="black",
                     zorder=4)  # fmt: skip
        labels.append(wrapped(f"{row['tuned']}, lr {row['lr']:g}", 44))
        texts.append(_label(row, metric))
    label_rows(axes, right, labels, texts, (0.6, 0.6), metric)
    axes.set_xlabel(axis_label(split(runs), metric))
    title(figure, "After equal tuning, on fresh seeds", runs)
    diverged = int((runs["status"] == "diverged").sum())
    caption(
        figure,
        f"Each strategy's best of {extent(row['trials'] for row in rows)} random "
        f"trials (by validation), n = {extent(row['n'] for row in shown)} fresh seeds.",
        "Points: one run each, a seed at the same height in every row; diamonds and bars: mean "
        f"and its {interval_of_mean(metric, 'some runs do')}.",
        f"{diverged} of {len(runs)} runs diverged (crosses); they score "
        f"{worst_of(metric)} and count."
        if diverged
        else "",
        "Right: mean, paired difference to tuned none with its interval, and what may be claimed "
        "(Holm-corrected).",
    )
    return figure


def _label(row: Mapping[str, Any], metric: Metric) -> str:
    text = score_text(metric, row["score"])
    if row["none_difference"] is None:
        return text
    return f"{text}   {row['none_shown']}\n{row['none_evidence']}"


def _trials(curve: BudgetCurve) -> Any:
    return np.arange(1, len(curve.mean) + 1)


def _curve_legend() -> list[Line2D | Patch]:
    return [
        Line2D([], [], color="#666666", linewidth=1.8, label="this strategy"),
        Patch(color="#666666", alpha=0.2, label="10 to 90 %"),
        Line2D([], [], color=BASELINE, linestyle=(0, (4, 2)), label="none"),
        Line2D([], [], color="#c8c8c8", label="the others"),
    ]
