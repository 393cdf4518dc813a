"""How exactly must the threshold be right? The score over it, a panel a strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gclip.results.comparable import scored_runs
from gclip.results.frames import ordered
from gclip.results.metrics import metric_of, with_scores
from gclip.training.metric import Metric

from ._metrics import axis_label, mark_worst, whole_range, worst_of
from ._studies import columns_for, log_axis, looks_of, means, percents, points
from ._style import BASELINE, canvas, caption, extent, split, styled, title, wrapped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

WIDE, HIGH = 2.75, 2.75


@styled
def draw(runs: pd.DataFrame, defaults: Mapping[str, float | None]) -> Figure:
    """Above: the score, every run a point; below: the share of clipped steps.

    Args:
        runs: one row a run: `strategy`, `threshold` (the field), `value`, `seed`, `status`,
            `score` or `accuracy`, `clip_rate`; the rows of ``none`` make the line to beat.
        defaults: the threshold's default by strategy; None where it is not a number.
    """
    scored, metric = with_scores(scored_runs(runs)), metric_of(runs)
    strategies = [text for text in ordered(list(defaults)) if text != "none"]
    look = looks_of(strategies)
    columns = columns_for(len(strategies))
    rows = -(-len(strategies) // columns)
    figure = canvas(max(6.6, WIDE * columns + 0.4), 1.75 + HIGH * rows)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3, 1] * rows)
    none = scored[scored["strategy"] == "none"]["score"]
    for place, text in enumerate(strategies):
        row, column = divmod(place, columns)
        above = figure.add_subplot(grid[2 * row, column])
        below = figure.add_subplot(grid[2 * row + 1, column], sharex=above)
        own = scored[scored["strategy"] == text]
        every = runs[runs["strategy"] == text]
        _score(above, own, look[text].colour, none, defaults[text], metric)
        _clip_rate(below, own, look[text].colour, defaults[text])
        _threshold_axis(above, every)
        above.set_title(wrapped(text, 34), pad=5)
        above.spines["top"].set(color=look[text].colour, linewidth=3)
        above.tick_params(labelbottom=False)
        below.set_xlabel(every["threshold"].iloc[0] if len(every) else "")
        for axes in (above, below):
            axes.tick_params(labelleft=column == 0)
        above.set_ylabel(axis_label(split(runs), metric) if column == 0 else "")
        below.set_ylabel("clipped (%)" if column == 0 else "", fontsize=8)
    figure.legend(handles=_legend(len(none) > 0), loc="outside upper right", ncols=5)
    name = metric.name[:1].upper() + metric.name[1:]
    title(figure, f"{name} over the threshold", runs)
    counts = scored.groupby(["strategy", "value"]).size()
    caption(
        figure,
        f"n = {extent(counts)} seeds at each value." if len(counts) else "",
        "Lines: mean; bands: from the lowest to the highest run. Below: mean share of steps in "
        "which anything was clipped.",
        f"{int((scored['status'] == 'diverged').sum())} of {len(scored)} runs diverged; they score "
        f"{worst_of(metric)} and count.",
    )
    return figure


def _score(
    axes: Axes,
    runs: pd.DataFrame,
    colour: str,
    none: pd.Series[float],
    default: float | None,
    metric: Metric,
) -> None:
    if len(none):
        axes.axhspan(none.min(), none.max(), color=BASELINE, alpha=0.07, linewidth=0)
        axes.axhline(none.mean(), color=BASELINE, linewidth=1.1, linestyle=(0, (4, 2)))
    _default(axes, default)
    at, middle, low, high = means(runs, "value")
    axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(at, middle, color=colour, linewidth=1.5)
    points(axes, runs, "value", colour)
    whole_range(axes, metric)
    mark_worst(axes, metric)


def _clip_rate(axes: Axes, runs: pd.DataFrame, colour: str, default: float | None) -> None:
    _default(axes, default)
    at, middle, _, _ = means(runs, "value", "clip_rate")
    axes.fill_between(at, 0, middle, color=colour, alpha=0.25, linewidth=0)
    axes.plot(at, middle, color=colour, linewidth=1, marker="o", markersize=2.5)
    percents(axes)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([0, 0.5, 1])


def _default(axes: Axes, default: float | None) -> None:
    if default is not None:
        axes.axvline(default, color="#777777", linewidth=1, linestyle=":", zorder=1)


def _threshold_axis(axes: Axes, runs: pd.DataFrame) -> None:
    """On a log scale where the grid is even on one."""
    values = sorted({float(value) for value in runs["value"]})
    if len(values) > 1 and values[0] > 0 and values[-1] / values[0] >= 8 and _spread(values):
        log_axis(axes, values[0], values[-1])
        margin = (values[-1] / values[0]) ** 0.05
        axes.set_xlim(values[0] / margin, values[-1] * margin)


def _spread(values: list[float]) -> bool:
    """Whether the values stand evenly on a log scale, rather than on a linear one."""
    middle = values[len(values) // 2]
    linear = (middle - values[0]) / (values[-1] - values[0])
    return linear < 0.3


def _legend(none: bool) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], linestyle="", marker="o", markersize=4, color="#888888", label="a run"),
        Line2D([], [], linestyle="", marker="x", markersize=4, color="#888888", label="diverged"),
        Line2D([], [], color="#777777", linestyle=":", label="default"),
    ]
    if none:
        line = Line2D([], [], color=BASELINE, linestyle=(0, (4, 2)), label="none")
        handles.append(line)
    return handles
