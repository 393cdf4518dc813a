"""What did tuning buy? Each tuned strategy on fresh seeds, beside the strategy as it comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from gclip.errors import UsageError
from gclip.results.metric_text import score_text
from gclip.results.metrics import metric_of, with_scores
from gclip.training.metric import Metric

from ._compared import ended
from ._looks import looks
from ._metrics import around, axis_label, interval_of_mean, worst_of
from ._page import page
from ._rows import diamond, label_rows, row_points, spread, whisker
from ._style import (
    canvas,
    caption,
    extent,
    finished,
    inches,
    legend,
    letters,
    split,
    title,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from gclip.results import Results

GAP = 0.38
"""How far below the tuned strategy its default stands."""


USUAL = False


def applies(results: Results) -> bool:
    """Whether these are tuned strategies on fresh seeds, as ``budget`` and a report make them."""
    return "tuned" in results.table and "form" in results.runs and len(ended(results)) > 0


@finished
def draw(results: Results, ax: Axes | None = None) -> Figure | SubFigure:
    """Rows are strategies, the best on top; where defaults were trained, they are in grey below.

    Args:
        results: of the study ``budget``, or of ``gclip study report``.
        ax: draw into these axes, without the caption; else into a figure of its own.

    Raises:
        UsageError: these are no tuned strategies.
    """
    if not applies(results):
        raise UsageError(
            "this figure is of tuned strategies on fresh seeds: gclip study run budget, or "
            "gclip study report"
        )
    rows: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items()}
        for row in results.table.to_dict("records")
        if row["n"]
    ]
    runs = with_scores(results.runs[results.runs["form"].notna()]).reset_index(drop=True)
    metric = metric_of(runs)
    both = bool((runs["form"] == "default").any())
    look = looks([row["strategy"] for row in rows])
    each = 0.5 if both else 0.3
    axes = canvas(0.70 + each * len(rows)).subplots() if ax is None else ax
    figure = axes.figure
    axes.set_xlim(*around(runs["score"], metric))
    right = axes.twinx()
    heights = spread(runs) * (0.45 if both else 1.0)
    soft = page().style.soft
    for place, row in enumerate(rows):
        own = runs[runs["strategy"] == row["strategy"]]
        for form, down in (("tuned", 0.0), ("default", GAP)):
            some = own[own["form"] == form]
            if some.empty:
                continue
            colour = look[row["strategy"]].colour if form == "tuned" else soft
            row_points(axes, some, place + down + heights, colour, 8, 0.7)
            mean = whisker(axes, place + down, some["score"], metric=metric)
            diamond(axes, mean.value, place + down, colour)
    width = letters(0.3)
    labels = [f"{wrapped(row['tuned'], width)}\nlr {row['lr']:.3g}" for row in rows]
    texts = [_difference(row, metric, inches() > 5) for row in rows]
    label_rows(axes, right, labels, texts, (0.5, 0.8 if both else 0.5), metric)
    axes.set_xlabel(axis_label(split(runs), metric))
    if ax is not None:
        return figure
    if both:
        legend(figure, [
            Line2D([], [], linestyle="", marker="D", color=colour, label=text,
                   markeredgecolor=page().style.ink)
            for colour, text in (("none", "tuned (in its colour)"), (soft, "as it comes"))
        ])  # fmt: skip
    name = "Tuned and as it comes, on fresh seeds" if both else "After equal tuning, on fresh seeds"
    title(figure, name, runs.drop(columns=["lr"], errors="ignore"))
    caption(figure, *_notes(rows, runs, both, metric))
    return figure


def _difference(row: Mapping[str, Any], metric: Metric, wide: bool) -> str:
    """The mean, and the difference that is said of it in the study's table."""
    text = score_text(metric, row["score"])
    if row.get("vs_default_difference") is not None:
        shown, evidence = row["vs_default_text"], row["vs_default_evidence"]
    elif row.get("none_difference") is not None:
        shown, evidence = row["none_shown"], row["none_evidence"]
    else:
        return text
    said = str(shown).rstrip(" ▲▼")
    return f"{text}   {said}\n{wrapped(str(evidence), 40 if wide else 20)}"


def _notes(rows: list[dict[str, Any]], runs: pd.DataFrame, both: bool, metric: Metric) -> list[str]:
    diverged = int((runs["status"] == "diverged").sum())
    against = "the strategy as it comes" if both else "tuned none"
    return [
        f"Each strategy's best of {extent(row['trials'] for row in rows)} trials (by validation), "
        f"n = {extent(row['n'] for row in rows)} fresh seeds.",
        "Points: one run each, a seed at the same height in every row; diamonds and bars: mean "
        f"and its {interval_of_mean(metric, 'some runs do')}."
        + (" As it comes: the default at the learning rate that was not tuned." if both else ""),
        f"{diverged} of {len(runs)} runs diverged (crosses); they score "
        f"{worst_of(metric)} and count."
        if diverged
        else "",
        f"Right: mean, paired difference to {against} with its interval, and what may be claimed "
        "(Holm-corrected over the study's table).",
    ]
