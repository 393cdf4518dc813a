"""What does each strategy withstand? The score under every disturbance, beside the clean one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from gclip.errors import UsageError
from gclip.results.metrics import is_accuracy, metric_of, with_scores
from gclip.training.metric import Metric

from ._compared import ended, one_setting
from ._looks import Look, looks
from ._metrics import axis_label, format_axis, interval_of_mean, worst_of
from ._page import page
from ._rows import diamond, row_height, row_points, spread, whisker
from ._style import (
    caption,
    columns_for,
    dot,
    finished,
    legend,
    letters,
    room,
    seeds,
    split,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.results import Results

CLEAN = "clean"
KINDS = ("label_noise", "gradient_noise", "spikes")


USUAL = False


def applies(results: Results) -> bool:
    """Whether runs were disturbed, each in one way."""
    runs = ended(results)
    if not one_setting(runs) or not len(runs) or len(results.trials):
        return False
    if "disturbance" in runs:
        return True
    varied = [name for name in KINDS if name in runs and runs[name].nunique() > 1]
    return bool(varied)


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A panel a condition, a row a strategy, the one with the best mean over all on top.

    Args:
        results: runs of the study ``noise``, or any of which some were disturbed.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: no run was disturbed.
    """
    if not applies(results):
        raise UsageError("no run was disturbed: gclip study run noise, or --label-noise 0.2")
    runs = _with_conditions(with_scores(results.runs)).reset_index(drop=True)
    metric = metric_of(runs)
    conditions = _conditions(runs)
    overall = runs.groupby("strategy")["score"].mean()
    order = sorted(overall.index, key=lambda text: (-metric.sign * overall[text], text))
    look = looks(order)
    columns = columns_for(len(conditions), 0.82, figure)
    lines = -(-len(conditions) // columns)
    labels = [wrapped(text, letters(0.2)) for text in order]
    figure = room(figure, 0.70 + lines * (0.5 + row_height(labels, 0.17) * len(order)))
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    heights = spread(runs)
    clean = runs[runs["disturbance"] == CLEAN].groupby("strategy")["score"].mean()
    low, high = float(runs["score"].min()), float(runs["score"].max())
    margin = 0.05 * (high - low) or 0.05
    grid[0].set_xlim(low - margin, high + margin)
    for axes, (name, level) in zip(grid, conditions, strict=False):
        at_level = runs[(runs["disturbance"] == name) & (runs["level"] == level)]
        for place, text in enumerate(order):
            own = at_level[at_level["strategy"] == text]
            if own.empty:
                continue
            _row(axes, own, place, heights, look[text], metric)
            if name != CLEAN and text in clean.index:
                axes.scatter(clean[text], place, s=dot(26), marker="|", zorder=2,
                             color=page().style.ink)  # fmt: skip
        axes.set_title(_title(name, level), fontsize="small")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    for axes in grid[len(conditions) :]:
        axes.remove()
    for place, axes in enumerate(grid[: len(conditions)]):
        if place + columns >= len(conditions):
            axes.set_xlabel(axis_label(split(runs), metric), fontsize="small")
            axes.tick_params(labelbottom=True)
    grid[0].locator_params(axis="x", nbins=3)
    format_axis(grid[0].xaxis, metric, 0)
    grid[0].set_yticks(range(len(order)), labels)
    grid[0].set_ylim(len(order) - 0.4, -0.6)
    legend(figure, _legend())
    name = metric.name[:1].upper() + metric.name[1:]
    title(figure, f"{name} under disturbances", results.runs)
    per_cell = runs[(runs["disturbance"] == conditions[0][0]) & (runs["level"] == conditions[0][1])]
    caption(
        figure,
        f"Points: one run each, a seed at the same height in every row; {seeds(per_cell)}.",
        f"Bars: {interval_of_mean(metric, 'some do')}. Label noise: "
        "share of wrong training labels; gradient noise: heavy-tailed, times each tensor's root "
        "mean square; "
        "spikes: chance of a step with gradients 1000 times too large. Diverged runs score "
        f"{worst_of(metric) if not is_accuracy(metric) else 'chance'}.",
    )
    return figure


def _with_conditions(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with `disturbance` and `level`, read from their settings unless a study says them;
    without those that were disturbed in several ways."""
    if "disturbance" in runs:
        return runs
    kinds = [name for name in KINDS if name in runs]
    levels = runs[kinds].astype(float).fillna(0.0)
    several = (levels > 0).sum(axis=1) > 1
    named = levels.idxmax(axis=1).where(levels.max(axis=1) > 0, CLEAN)
    return runs.assign(disturbance=named, level=levels.max(axis=1))[~several]


def _conditions(runs: pd.DataFrame) -> list[tuple[str, float]]:
    found = set(zip(runs["disturbance"], runs["level"].astype(float), strict=True))
    kinds = (CLEAN, *KINDS)
    return sorted(found, key=lambda each: (kinds.index(each[0]), each[1]))


def _row(
    axes: Axes,
    runs: pd.DataFrame,
    place: int,
    heights: pd.Series[float],
    look: Look,
    metric: Metric,
) -> None:
    row_points(axes, runs, place + heights[runs.index], look.colour, 5, 0.65)
    mean = whisker(axes, place, runs["score"], 1.0, metric)
    diamond(axes, mean.value, place, look.colour, 12)


def _title(name: str, level: float) -> str:
    return name if name == CLEAN else f"{name.replace('_', ' ')} {level:g}"


def _legend() -> list[Line2D]:
    ink = page().style.ink

    def mark(marker: str, label: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=ink, label=label)

    return [
        mark("o", "a run"),
        mark("x", "diverged"),
        mark("D", "mean"),
        mark("|", "mean of its clean runs"),
    ]
