"""What did tuning buy? Each strategy tuned and as it comes, on fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gclip.results.comparable import scored_runs
from gclip.results.metric_text import score_text
from gclip.results.metrics import metric_of, with_scores
from gclip.training.metric import ACCURACY, Metric

from ._metrics import around, axis_label, format_axis, interval_of_mean, worst_of
from ._rows import label_rows, row_points, spread, whisker
from ._studies import looks_of
from ._style import MARKS, canvas, caption, extent, styled, title, wrapped

GAP = 0.38
"""How far below the tuned strategy its default stands."""


@styled
def draw(rows: Sequence[Mapping[str, Any]], runs: pd.DataFrame) -> Figure:
    """Two lines a strategy: tuned in its colour, the default in grey below; every run a point.

    Args:
        rows: the table of the report.
        runs: one row a run: `strategy`, `form` (tuned or default), `seed`, `status`, `score`.
    """
    shown = [row for row in rows if row["n"]]
    metric = metric_of(runs)
    runs = with_scores(scored_runs(runs)).reset_index(drop=True)
    look = looks_of([row["strategy"] for row in rows])
    figure = canvas(9.0, 2.1 + 0.72 * len(shown))
    axes = figure.subplots()
    axes.set_xlim(*around(runs["score"], metric))
    right = axes.twinx()
    heights = spread(runs) * 0.45
    for place, row in enumerate(shown):
        for form, prefix, down in (("tuned", "", 0.0), ("default", "default_", GAP)):
            colour = look[row["strategy"]].colour if form == "tuned" else "#8c8c8c"
            own = runs[(runs["strategy"] == row["strategy"]) & (runs["form"] == form)]
            row_points(axes, own, place + down + heights, colour, 18, 0.7)
            if row[f"{prefix}score"] is None:
                continue
            whisker(axes, place + down, own["score"], 1.4, metric)
            axes.scatter(row[f"{prefix}score"], place + down, s=34, marker="D", color=colour,
                         edgecolors="black", zorder=4)  # fmt: skip
    labels = [wrapped(f"{row['tuned']}, lr {row['lr']:.3g}", 44) for row in shown]
    texts = [_difference_text(row, metric) for row in shown]
    label_rows(axes, right, labels, texts, (0.5, 0.8), metric)
    axes.set_xlabel(axis_label("Test", metric))
    handles = [
        Line2D([], [], linestyle="", marker="D", color=colour, markeredgecolor="black", label=text)
        for colour, text in (("white", "tuned (in its colour)"), ("#8c8c8c", "as it comes"))
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    title(figure, "Tuned and as it comes, on fresh seeds", runs)
    diverged = int((runs["status"] == "diverged").sum())
    caption(
        figure,
        f"n = {extent(row['n'] for row in shown)} fresh seeds. "
        "Points: one run each; diamonds and bars: mean and its "
        f"{interval_of_mean(metric, 'some runs do')}. As it comes: the strategy's default at "
        "the learning rate that was not tuned.",
        f"{diverged} of {len(runs)} runs diverged (crosses); they score "
        f"{worst_of(metric)} and count."
        if diverged
        else "",
        "Right: tuned minus default, paired by seed, and what may be claimed (Holm-corrected).",
    )
    return figure


def _difference_text(row: Mapping[str, Any], metric: Metric) -> str:
    text = score_text(metric, row["score"])
    if row["vs_default_difference"] is None:
        return text
    shown = row["vs_default_text"].rstrip(" ▲▼")
    return f"{text}   {shown}\n{row['vs_default_evidence']}"


@styled
def slices(
    trials: pd.DataFrame, fields: Mapping[str, bool], name: str, metric: Metric = ACCURACY
) -> Figure:
    """A panel for each searched field: the validation score of every trial over its value.

    Args:
        trials: one row a trial: the fields, `score` and `status` (finished, diverged, pruned).
        fields: for each whether its axis is logarithmic.
        name: of the study.
        metric: what the scores are.
    """
    figure = canvas(max(5.0, 3.2 * len(fields)), 3.5)
    grid = figure.subplots(1, len(fields), sharey=True, squeeze=False)[0]
    marks = {**MARKS, "pruned": "v"}
    colours = {"finished": "#0173b2", "diverged": "#c44e00", "pruned": "#8c8c8c"}
    for axes, (field, log) in zip(grid, fields.items(), strict=True):
        for status, marker in marks.items():
            some = trials[trials["status"] == status]
            axes.scatter(some[field], some["score"], s=26, marker=marker,
                         color=colours[status], alpha=0.8, label=status)  # fmt: skip
        if log:
            axes.set_xscale("log")
        axes.set_xlabel(field)
        format_axis(axes.yaxis, metric)
    grid[0].set_ylabel(axis_label("Validation", metric))
    present = [status for status in marks if (trials["status"] == status).any()]
    handles = [
        Line2D([], [], linestyle="", marker=marks[s], color=colours[s], label=s) for s in present
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=3)
    figure.suptitle(name, x=0.01, ha="left", parse_math=False)
    caption(figure, f"n = {len(trials)} trials. A diverged trial scores {worst_of(metric)}.")
    return figure
