"""Who is better than the baseline? Paired differences with their intervals and p-values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure, SubFigure

from gclip.results.evidence import shown_difference
from gclip.results.metric_text import interval_text, p_text
from gclip.results.metrics import metric_of
from gclip.results.statistics import TOO_FEW, compare_table
from gclip.training.metric import Metric

from ._compared import baseline_of, is_compared, require
from ._looks import looks
from ._page import page
from ._rows import diamond, row_height
from ._style import canvas, caption, finished, inches, letters, pt, split, title, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.results import Results


def applies(results: Results) -> bool:
    """Whether these are at least two strategies on shared seeds."""
    return is_compared(results)


@finished
def draw(results: Results, ax: Axes | None = None) -> Figure | SubFigure:
    """Rows are strategies, the largest improvement on top; zero is the baseline.

    Args:
        results: of a comparison.
        ax: draw into these axes, without the caption; else into a figure of its own.

    Raises:
        UsageError: these are not runs of a comparison.
    """
    runs = require(results)
    metric, baseline = metric_of(runs), baseline_of(runs)
    rows = differences(compare_table(runs, baseline), metric)
    look = looks(row["strategy"] for row in rows)
    width = letters(0.26)
    labels = [wrapped(row["strategy"], width) for row in rows]
    height = row_height([*labels, "two\nlines"], 0.24)
    axes = canvas(0.70 + height * len(rows)).subplots() if ax is None else ax
    figure = axes.figure
    ink = page().style.ink
    axes.axvline(0, color=ink, linewidth=pt(0.8))
    for place, row in enumerate(rows):
        if not math.isnan(row["low"]):
            axes.hlines(place, row["low"], row["high"], color=ink, linewidth=pt(1.2), zorder=3)
        diamond(axes, row["value"], place, look[row["strategy"]].colour)
    axes.set_yticks(range(len(rows)), labels)
    right = axes.twinx()
    gap = "  " if inches() > 5 else "\n"
    right.set_yticks(range(len(rows)), [f"{row['text']}{gap}{row['p']}" for row in rows])
    for side in (axes, right):
        side.set_ylim(len(rows) - 0.4, -0.6)
        side.grid(visible=False, axis="y")
        side.tick_params(axis="y", length=0)
    scale, unit = metric.scale, "points" if metric.unit == "%" else metric.unit
    axes.xaxis.set_major_formatter(lambda value, _: f"{scale * value:+.3g}" if value else "0")
    axes.locator_params(axis="x", nbins=5)
    arrow = "→" if metric.better == "higher" else "←"
    label = f"Difference in {split(runs).lower()} {metric.name}" + (f" ({unit})" if unit else "")
    axes.set_xlabel(f"{label}, better {arrow}")
    if ax is not None:
        return figure
    title(figure, f"Differences to {baseline}", runs)
    few = any(row["evidence"] == TOO_FEW for row in rows)
    all_trained = all(row["all"] for row in rows)
    caption(
        figure,
        f"Paired by seed, n = {rows[0]['pairs']} pairs a strategy. Diamonds: mean difference; bars "
        "and numbers: its 95 % interval, each by itself"
        + ("." if all_trained else " (of the pairs of which both trained, where six or more did)."),
        "p: sign-flip test" + ("" if all_trained else " or McNemar's")
        + f", Holm-corrected over the {len(rows)} rows.",
        "So few seeds can show no difference, however large." if few else "",
    )  # fmt: skip
    return figure


def differences(table: Any, metric: Metric) -> list[dict[str, Any]]:
    """What is drawn, the largest improvement first: the rows of a `compare_table` that have pairs.

    ``value``, ``low``, ``high``, ``text``, ``p`` (in words), ``evidence``, ``pairs``, and whether
    ``all`` of them trained.
    """
    rows = []
    for row in table.to_dict("records"):
        if not row["pairs"]:
            continue
        found = shown_difference(
            {
                **row,
                "trained_low": row["diff_trained_low"],
                "trained_high": row["diff_trained_high"],
            },
            low="diff_low",
            high="diff_high",
        )
        rows.append(
            {
                "strategy": row["strategy"],
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "text": interval_text(metric, found.value, found.low, found.high, sign=True),
                "p": _p(row["p_holm"], row["evidence"]),
                "evidence": row["evidence"],
                "pairs": int(row["pairs"]),
                "all": row["both"] == row["pairs"],
            }
        )
    return sorted(rows, key=lambda row: (-metric.sign * row["value"], row["strategy"]))


def _p(value: float, evidence: str) -> str:
    """Never a p-value where n is too small for one."""
    if math.isnan(value) or evidence.startswith("too few"):
        return "too few" if evidence.startswith("too few") else "no test"
    return p_text(value, space=" ")
