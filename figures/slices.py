"""Which values did a search try? The validation score of every trial over each searched field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from gclip.errors import UsageError
from gclip.results.frames import ordered
from gclip.results.metrics import metric_of

from ._looks import looks
from ._metrics import axis_label, clip_axis, format_axis, worst_of
from ._over import even_on_log, log_axis
from ._page import page
from ._style import (
    MARKS,
    caption,
    columns_for,
    dot,
    left_out,
    legend,
    letters,
    of_results,
    panels,
    pt,
    room,
    side_label,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from gclip.results import Results

PRUNED = "v"


USUAL = False


def applies(results: Results) -> bool:
    """Whether there are trials that tried numbers."""
    return bool(_numbers(results.trials))


@of_results
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A panel for each strategy and each number that was searched of it; the best is ringed.

    Args:
        results: of a study that searched.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: there are no trials, or they tried no number.
    """
    fields = _numbers(results.trials)
    if not fields:
        raise UsageError("no trial tried a number: gclip study run thresholds -s norm")
    trials, metric = results.trials, metric_of(results.trials)
    strategies = ordered(text for text, _ in fields)
    look = looks(strategies)
    columns = columns_for(len(fields), 1.15, figure)
    rows = -(-len(fields) // columns)
    figure = room(figure, 0.55 + 1.35 * rows)
    grid = panels(figure, len(fields), columns, sharey=True)
    ink = page().style.ink
    marks = {**MARKS, "pruned": PRUNED}
    for axes, ((text, field), values) in zip(grid, fields.items(), strict=True):
        own = trials.loc[values.index]
        for status, marker in marks.items():
            some = own["status"] == status
            axes.scatter(values[some], own["score"][some].astype(float), s=dot(9), marker=marker,
                         color=look[text].colour, alpha=0.75,
                         linewidths=pt(0.8) if marker == "x" else 0)  # fmt: skip
        best = own["best"].astype(bool)
        axes.scatter(values[best], own["score"][best].astype(float), s=dot(34), marker="o",
                     facecolors="none", edgecolors=ink, linewidths=pt(0.8))  # fmt: skip
        tried = sorted(float(value) for value in set(values))
        if even_on_log(tried) or _on_log(own, field):
            log_axis(axes, tried[0], tried[-1])
        axes.set_xlabel(field)
        axes.set_title(wrapped(text, letters(0.84 / columns, figure=figure)), fontsize="small")
        axes.spines["top"].set(color=look[text].colour, linewidth=pt(2.2))
    for axes in grid:
        axes.margins(y=0.12)  # the ring is wider than a point
    clip_axis(grid[0], metric, 0.05)
    format_axis(grid[0].yaxis, metric, 0)
    side_label(figure, axis_label("Validation", metric))
    present = [status for status in marks if (trials["status"] == status).any()]
    handles = [
        Line2D([], [], linestyle="", marker=marks[s], color=page().style.soft, label=s)
        for s in present
    ]
    ring = Line2D([], [], linestyle="", marker="o", markerfacecolor="none", markersize=pt(5),
                  markeredgecolor=ink, label="best")  # fmt: skip
    legend(figure, [*handles, ring])
    name = ", ".join(dict.fromkeys(trials["study"])) if trials["study"].nunique() < 3 else ""
    below = name or f"{trials['study'].nunique()} studies"
    title(figure, "What the trials tried", below)
    others = [text for text in ordered(trials["strategy"]) if text not in strategies]
    caption(
        figure,
        f"n = {len(trials)} trials. A diverged trial scores {worst_of(metric)}.",
        left_out(others, "no number was searched"),
    )
    return figure


def _numbers(trials: pd.DataFrame) -> dict[tuple[str, str], pd.Series[float]]:
    """By strategy and field, the values that trials with a score tried, by their index."""
    if "params" not in trials or trials.empty:
        return {}
    scored = trials[trials["score"].notna()]
    found: dict[tuple[str, str], dict[Any, float]] = {}
    for index, text, params in zip(scored.index, scored["strategy"], scored["params"], strict=True):
        for field, value in json.loads(params).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault((text, field), {})[index] = float(value)
    order = {text: place for place, text in enumerate(ordered(text for text, _ in found))}
    keys = sorted(found, key=lambda key: (order[key[0]], key[1] != "lr", key[1]))
    return {key: pd.Series(found[key]) for key in keys if len(found[key]) > 1}


def _on_log(trials: pd.DataFrame, field: str) -> bool:
    """Whether the field was searched on a log scale."""
    known = json.loads(trials["distributions"].iloc[0]).get(field, {})
    return bool(known.get("attributes", {}).get("log"))
