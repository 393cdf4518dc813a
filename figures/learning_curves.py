"""How fast does each strategy learn? Score and training loss after every epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gclip.results.metrics import is_accuracy, metric_of, with_scores
from gclip.training.metric import Metric

from ._looks import Look, looks
from ._metrics import axis_label, clip_axis, format_axis, mark_worst, worst_of
from ._page import page
from ._same import together
from ._style import (
    FEW,
    caption,
    columns_for,
    counted,
    dot,
    extremes,
    finished,
    inches,
    legend,
    letters,
    panels,
    pt,
    room,
    seeds,
    side_label,
    split,
    title,
    upright,
    wrapped,
)

if TYPE_CHECKING:
    from gclip.results import Results

SPAN = 30
"""Losses whose largest is more than so many times their smallest have a logarithmic axis."""


def applies(results: Results) -> bool:
    """Whether these are runs of a comparison; a study's have figures of their own."""
    return not results.study


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Up to eight strategies share two panels; more have a panel each over all others in grey.

    Args:
        results: the runs.
        figure: draw into it; else into one of its own.
    """
    curves, metric = completed(results), metric_of(results.runs)
    losses = _loss_axis(curves, results.runs)
    measures = {
        "score": axis_label(split(results.runs), metric),
        "train_loss": "Training loss" + (" (cross-entropy)" if is_accuracy(metric) else ""),
    }
    few = len(results.strategies) <= FEW
    panels_of = _together if few else _apart
    figure = panels_of(results, curves, measures, metric, losses, figure)
    title(figure, "Learning curves", results.runs)
    if _one_epoch(curves):
        marks = (
            "One epoch, so there is no curve: small points are runs, large ones their mean, lines "
            f"from the lowest to the highest run; {seeds(results.runs)}."
        )
        others = "Strategies side by side." if few else "Grey: the means of the others."
    else:
        marks = (
            "Lines: mean over seeds; bands: from the lowest to the highest run; "
            f"{seeds(results.runs)}."
        )
        others = "" if few else "Thin grey lines: the other strategies."
    caption(
        figure,
        marks,
        others if few else f"{others} Panel colours as in all figures.",
        "" if losses.ends is None else "Losses of runs that diverge leave the axis.",
        "The axis of losses is logarithmic." if losses.log else "",
        f"After a run diverges it scores {worst_of(metric, 'chance level')}, and there is no mean "
        "loss any more: "
        f"the faint {'point' if _one_epoch(curves) else 'line'} is the mean of the others."
        if (results.runs["status"] == "diverged").any()
        else "",
        together(results),
    )
    return figure


def _one_epoch(curves: pd.DataFrame) -> bool:
    return curves["epoch"].nunique() <= 1


def completed(results: Results) -> pd.DataFrame:
    """The curves with a row for every epoch: once diverged, a run scores what it ended with.

    Without this the mean would be taken over the survivors, and divergence would look like success.
    Losses of diverged runs stay NaN (there is no number to give).
    """
    last = results.curves.groupby("key")["epoch"].max()
    total = int(max([*last, 1])) if "epochs" not in results.runs else None
    columns = ["key", "strategy", "seed", "epoch", "score", "train_loss"]
    recorded, runs = with_scores(results.curves), with_scores(results.runs)
    parts = [recorded[columns]]
    for run in runs[runs["status"] == "diverged"].to_dict("records"):
        epochs = int(total or run["epochs"])
        after = range(int(last.get(run["key"], 0)) + 1, epochs + 1)
        same = {name: run[name] for name in ("key", "strategy", "seed", "score")}
        rows = [{**same, "epoch": epoch, "train_loss": np.nan} for epoch in after]
        parts.append(pd.DataFrame(rows, columns=columns))
    curves = pd.concat([part for part in parts if len(part)], ignore_index=True)
    # The epoch in which it diverged is recorded, with whatever its network then gave.
    scores = runs.set_index("key")["score"]
    curves["score"] = curves["score"].fillna(curves["key"].map(scores))
    return curves


def _together(
    results: Results,
    curves: pd.DataFrame,
    measures: dict[str, str],
    metric: Metric,
    losses: _LossAxis,
    into: Figure | SubFigure | None,
) -> Figure | SubFigure:
    look = looks(results.strategies)
    side_by_side = inches(into) > 5
    figure = room(into, 1.9 if side_by_side else 3.2)
    grid = figure.subplots(1, 2) if side_by_side else figure.subplots(2, 1)
    for axes, (measure, label) in zip(grid, measures.items(), strict=True):
        for place, strategy in reversed(list(enumerate(results.strategies))):
            own = curves[curves["strategy"] == strategy]
            if _one_epoch(curves):
                _points(axes, own, measure, look[strategy], place)
            else:
                _curve(axes, own, measure, look[strategy])
        _finish(axes, measure, metric, curves, losses)
        if measure == "train_loss" and losses.log:
            axes.set_yscale("log")
        axes.set(xlabel="Epoch", ylabel=upright(figure, label, 0.8 if side_by_side else 0.38))
        if _one_epoch(curves):
            axes.set_xlim(-1, len(results.strategies))
            axes.set_xticks([])
            axes.set_xlabel("After the one epoch")
    handles = [
        Line2D(
            [],
            [],
            color=look[strategy].colour,
            dashes=look[strategy].dash or (1, 0),
            marker=look[strategy].marker,
            label=f"{wrapped(strategy)} ({counted(_of(results.runs, strategy))})",
        )
        for strategy in results.strategies
    ]
    legend(figure, handles)
    return figure


def _apart(
    results: Results,
    curves: pd.DataFrame,
    measures: dict[str, str],
    metric: Metric,
    losses: _LossAxis,
    into: Figure | SubFigure | None,
) -> Figure | SubFigure:
    look = looks(results.strategies)
    count = len(results.strategies)
    columns = columns_for(count, 0.98, into)
    rows = -(-count // columns)
    figure = room(into, 0.45 + 2 * 1.02 * rows)
    halves: Any = figure.subfigures(2, 1)
    for part, (measure, label) in zip(halves, measures.items(), strict=True):
        means = curves.groupby(["strategy", "epoch"])[measure].mean().unstack(0)
        grid = panels(part, count, columns, sharex=True, sharey=True)
        for axes, strategy in zip(grid, results.strategies, strict=True):
            own = curves[curves["strategy"] == strategy]
            if _one_epoch(curves):
                grey_points = [1] * means.shape[1]
                axes.scatter(grey_points, means, s=dot(5), color=page().style.faint, zorder=1)
                _points(axes, own, measure, look[strategy], 1)
                axes.set_xlim(0, 2)
                axes.set_xticks([1])
            else:
                others = [np.column_stack([means.index, means[name]]) for name in means]
                grey = LineCollection(
                    others, colors=page().style.faint, linewidths=pt(0.4), zorder=1
                )
                axes.add_collection(grey)
                alone = own["epoch"].nunique() == 1  # one point is no line
                _curve(axes, own, measure, look[strategy], markers=alone)
            width = letters(0.86 / columns, figure=figure)
            name = f"{wrapped(strategy, width)}\n{counted(_of(results.runs, strategy))}"
            axes.set_title(name, fontsize="small")
            axes.spines["top"].set(color=look[strategy].colour, linewidth=pt(2.2))
            _finish(axes, measure, metric, curves, losses)
            axes.set(xlabel="", ylabel="")
        if measure == "train_loss" and losses.log:
            grid[0].set_yscale("log")  # of all; seaborn takes means of logarithms on such an axis
        side_label(part, label)
        part.supxlabel("Epoch", fontsize="medium")
    return figure


def _points(axes: Axes, curves: pd.DataFrame, measure: str, look: Look, place: float) -> None:
    """All that one epoch gives: every run, and their mean, faint where some have no value."""
    known = curves[measure][np.isfinite(curves[measure])]
    if known.empty:
        return
    axes.margins(y=0.1)
    axes.vlines(place, known.min(), known.max(), color=look.colour, linewidth=pt(1.0), alpha=0.5)
    axes.scatter([place] * len(known), known, s=dot(7), color=look.colour, alpha=0.6, linewidths=0)
    faint = len(known) < curves["key"].nunique()
    axes.plot([place], [known.mean()], color=look.colour, marker=look.marker, markersize=pt(5.5),
              markeredgecolor=page().style.ink, alpha=0.4 if faint else 1.0)  # fmt: skip


def _curve(
    axes: Axes, curves: pd.DataFrame, measure: str, look: Look, *, markers: bool = True
) -> None:
    shape: dict[str, Any] = {"marker": look.marker} if markers else {}
    shape["markersize"] = pt(3.5)
    shape["linewidth"] = pt(1.1)
    known = curves[np.isfinite(curves[measure])]
    counts = known.groupby("epoch").size()
    # From the first divergence on, a mean loss would be that of the survivors: it is only hinted.
    complete = counts.index[counts == curves["key"].nunique()]
    last = complete.max() if len(complete) else 0
    partly = known[known["epoch"] >= last].groupby("epoch")[measure].mean()
    alone = look.marker if len(partly) == 1 and not len(complete) else ""  # no line to be seen
    axes.plot(partly.index, partly, color=look.colour, alpha=0.55, linewidth=pt(0.8), marker=alone)
    if not len(complete):
        return
    sns.lineplot(
        **shape,
        data=known[known["epoch"] <= last],
        x="epoch",
        y=measure,
        estimator="mean",
        errorbar=extremes,
        color=look.colour,
        dashes=look.dash or (1, 0),
        err_kws={"alpha": 0.15, "linewidth": 0},
        legend=False,
        ax=axes,
    )


class _LossAxis(NamedTuple):
    """How losses are drawn.

    Attributes:
        log: whether they span so much that a linear axis would show the first epochs alone.
        ends: of the axis, if a run that diverged would flatten all the others; else None.
    """

    log: bool
    ends: tuple[float, float] | None


def _loss_axis(curves: pd.DataFrame, runs: pd.DataFrame) -> _LossAxis:
    losses = curves[np.isfinite(curves["train_loss"])]
    finished = runs.loc[runs["status"] == "finished", "key"]
    usual = losses.loc[losses["key"].isin(finished), "train_loss"]
    if usual.empty:
        return _LossAxis(False, None)
    low, high = float(usual.min()), float(usual.max())
    log = not _one_epoch(curves) and 0 < SPAN * low < high
    if losses["train_loss"].max() <= 10 * abs(high):
        return _LossAxis(log, None)
    if log:
        margin = (high / low) ** 0.08
        return _LossAxis(log, (low / margin, high * margin))
    margin = 0.08 * (high - low) or 1.0
    return _LossAxis(log, (low - margin, high + margin))


def _finish(
    axes: Axes, measure: str, metric: Metric, curves: pd.DataFrame, losses: _LossAxis
) -> None:
    if not _one_epoch(curves):
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.margins(x=0.02)
    if measure == "score":
        format_axis(axes.yaxis, metric)
        clip_axis(axes, metric)
        mark_worst(axes, metric)
        return
    if losses.ends is not None:
        axes.set_ylim(*losses.ends)
    plain = not (losses.log or _one_epoch(curves))
    if plain and is_accuracy(metric):  # another loss may well be negative
        axes.set_ylim(bottom=0)


def _of(runs: pd.DataFrame, strategy: str) -> pd.DataFrame:
    return runs[runs["strategy"] == strategy]
