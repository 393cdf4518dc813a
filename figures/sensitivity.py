"""How exactly must the threshold be right? The score over it, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gclip.errors import UsageError
from gclip.results.frames import ordered
from gclip.results.metrics import metric_of, with_scores
from gclip.results.varied import default_of, with_thresholds
from gclip.training.metric import Metric

from ._compared import ended, one_setting
from ._looks import looks
from ._metrics import axis_label, interval_of_mean, mark_worst, whole_range, worst_of
from ._over import even_on_log, log_axis, means, percents, points
from ._page import page
from ._style import (
    caption,
    columns_for,
    extent,
    finished,
    left_out,
    legend,
    letters,
    pt,
    room,
    split,
    title,
    upright,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from gclip.results import Results

FEWEST = 3
"""Values of a threshold that make a curve."""


USUAL = False


def applies(results: Results) -> bool:
    """Whether some strategy was tried with several thresholds, and with nothing else varied."""
    runs = ended(results)
    if (
        "lr" not in runs
        or not one_setting(runs)
        or not len(runs)
        or len(results.trials)
        or runs["lr"].nunique() > 1
    ):
        return False
    return "rate" not in runs and bool(_families(with_thresholds(runs), results.study))


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Above: the score, every run a point; below: the share of clipped steps.

    Args:
        results: runs of the study ``sensitivity``, or any in which strategies differ in a number.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: no strategy has several thresholds.
    """
    runs, metric = with_thresholds(with_scores(results.runs)), metric_of(results.runs)
    strategies = _families(runs, results.study)
    if not strategies:
        raise UsageError(
            f"no strategy was tried with {FEWEST} values of one number: gclip study run sensitivity"
        )
    look = looks(strategies)
    columns = columns_for(len(strategies), 1.35, figure)
    rows = -(-len(strategies) // columns)
    figure = room(figure, 0.55 + 1.6 * rows)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3, 1] * rows)
    none = runs[runs["strategy"] == "none"]["score"]
    top: Axes | None = None
    for place, text in enumerate(strategies):
        row, column = divmod(place, columns)
        above = figure.add_subplot(grid[2 * row, column], sharey=top)
        below = figure.add_subplot(grid[2 * row + 1, column], sharex=above)
        top = top or above
        own = runs[(runs["strategy"] == text) & runs["value"].notna()]
        threshold = str(own["threshold"].iloc[0])
        default = default_of(text, threshold)
        _score(above, own, look[text].colour, none, default, metric)
        _clip_rate(below, own, look[text].colour, default)
        _threshold_axis(above, own)
        above.set_title(wrapped(text, letters(0.86 / columns, figure=figure)))
        above.spines["top"].set(color=look[text].colour, linewidth=pt(2.2))
        above.tick_params(labelbottom=False)
        below.set_xlabel(threshold)
        for axes in (above, below):
            axes.tick_params(labelleft=column == 0)
        label = upright(figure, axis_label(split(runs), metric), 0.55 / rows)
        above.set_ylabel(label if column == 0 else "")
        below.set_ylabel("clipped (%)" if column == 0 else "", fontsize="small")
    if top is not None:
        whole_range(top, metric)
    legend(figure, _legend(len(none) > 0))
    name = metric.name[:1].upper() + metric.name[1:]
    title(figure, f"{name} over the threshold", results.runs)
    counts = runs[runs["strategy"].isin(strategies)].groupby(["strategy", "value"]).size()
    others = [text for text in ordered(runs["strategy"]) if text not in (*strategies, "none")]
    caption(
        figure,
        f"n = {extent(counts)} seeds at each value.",
        f"Lines: mean; bands: its {interval_of_mean(metric)}. Below: mean share of steps in which "
        "anything was clipped.",
        f"{int((runs['status'] == 'diverged').sum())} of {len(runs)} runs diverged; they score "
        f"{worst_of(metric)} and count.",
        left_out(others, f"fewer than {FEWEST} values of a number"),
    )
    return figure


def _families(runs: pd.DataFrame, study: str) -> list[str]:
    counts = runs[runs["value"].notna()].groupby("strategy")["value"].nunique()
    least = 2 if study else FEWEST
    return [text for text in ordered(counts.index) if counts[text] >= least and text != "none"]


def _score(
    axes: Axes,
    runs: pd.DataFrame,
    colour: str,
    none: pd.Series[float],
    default: float | None,
    metric: Metric,
) -> None:
    ink = page().style.ink
    if len(none):
        axes.axhspan(none.min(), none.max(), color=ink, alpha=0.07, linewidth=0)
        axes.axhline(none.mean(), color=ink, linewidth=pt(0.9), linestyle=(0, (4, 2)))
    _default(axes, default)
    at, middle, low, high = means(runs, "value")
    axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(at, middle, color=colour, linewidth=pt(1.2))
    points(axes, runs, "value", colour)
    mark_worst(axes, metric)


def _clip_rate(axes: Axes, runs: pd.DataFrame, colour: str, default: float | None) -> None:
    _default(axes, default)
    at, middle, _, _ = means(runs, "value", "clip_rate")
    axes.fill_between(at, 0, middle, color=colour, alpha=0.25, linewidth=0)
    axes.plot(at, middle, color=colour, linewidth=pt(0.9), marker="o", markersize=pt(1.8))
    percents(axes)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([0, 1])


def _default(axes: Axes, default: float | None) -> None:
    if default is not None:
        axes.axvline(default, color=page().style.soft, linewidth=pt(0.9), linestyle=":", zorder=1)


def _threshold_axis(axes: Axes, runs: pd.DataFrame) -> None:
    """On a log scale where the grid is even on one."""
    values = sorted({float(value) for value in runs["value"]})
    if even_on_log(values):
        log_axis(axes, values[0], values[-1])
        margin = (values[-1] / values[0]) ** 0.03
        axes.set_xlim(values[0] / margin, values[-1] * margin)
    else:
        margin = 0.03 * (values[-1] - values[0])
        axes.set_xlim(values[0] - margin, values[-1] + margin)


def _legend(none: bool) -> list[Line2D | Patch]:
    soft = page().style.soft
    handles: list[Line2D | Patch] = [
        Line2D([], [], linestyle="", marker="o", color=soft, label="a run"),
        Line2D([], [], linestyle="", marker="x", color=soft, label="diverged"),
        Line2D([], [], color=soft, linestyle=":", label="default"),
    ]
    if none:
        handles.append(Line2D([], [], color=page().style.ink, linestyle=(0, (4, 2)), label="none"))
    return handles
