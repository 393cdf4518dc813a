"""The table of a comparison, narrow enough for 100 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gclip.cli.screen import GAP, percent, plain_table

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

FOOTNOTE = (
    "Accuracy and differences in %, with 95 % intervals; differences are paired by seed; "
    "p of a sign-flip\ntest, Holm-corrected. A diverged run counts as chance. "
    "clipped: share of the steps; s: seconds a run."
)


_STRATEGY, _EVIDENCE, _VERDICT = 0, 3, 5
_LEAST = {_STRATEGY: 11, _EVIDENCE: 13, _VERDICT: 10}


def comparison_table(
    table: pd.DataFrame, baseline: str, split: str = "test", width: int = 100
) -> Table:
    """`gclip.results.statistics.compare_table` as text `width` columns wide, the best first."""
    headings = (
        "strategy",
        f"{split} accuracy",
        f"vs {baseline}" if len(baseline) <= 10 else "vs baseline",
        "evidence",
        "clipped",
        "verdict",
        "div.",
        "s",
        "n",
    )
    rows = [
        _cells({str(key): value for key, value in row.items()}) for row in table.to_dict("records")
    ]
    drawn = plain_table(*headings)
    for index, size in enumerate(_widths([headings, *rows], width)):
        column, wraps = drawn.columns[index], index in _LEAST
        column.width, column.no_wrap, column.overflow = size, not wraps, "fold"
        column.justify = "left" if wraps else "right"
    for row in rows:
        drawn.add_row(*row)
    return drawn


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns' widths: numbers are never cut, words wrap where there is too little room."""
    sizes = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    too_much = sum(sizes) + GAP * (len(sizes) - 1) - width
    for index in (_VERDICT, _EVIDENCE, _STRATEGY):
        given = min(max(too_much, 0), max(sizes[index] - _LEAST[index], 0))
        sizes[index] -= given
        too_much -= given
    return sizes


def _cells(row: dict[str, Any]) -> list[str]:
    n, failed = int(row["n"]), int(row.get("failed", 0))
    diverged = round(row["diverged"] * n) if n else 0
    return [
        row["strategy"],
        _interval(row["accuracy"], row["low"], row["high"]),
        _interval(row["difference"], row["diff_low"], row["diff_high"], sign=True),
        _evidence(row),
        f"{percent(row['clip_rate'], 0)} %" if n else "–",
        row["verdict"] or "–",
        f"{diverged}/{n}",
        f"{row['seconds']:.1f}" if n else "–",
        f"{n}" + (f" ({failed} failed)" if failed else ""),
    ]


def _interval(value: float, low: float, high: float, sign: bool = False) -> str:
    if math.isnan(value):
        return "–"
    text = ("+" if sign and value > 0 else "") + percent(value)
    if math.isnan(low):
        return text
    return f"{text} ± {percent((high - low) / 2)}"  # t intervals are symmetric


def _evidence(row: dict[str, Any]) -> str:
    """What may be claimed, with its p-value; never a p-value where n is too small for one."""
    said = str(row["evidence"])
    if said in ("better", "worse", "no difference shown"):
        return f"{said}, {_p(row['p_holm'])}"
    return said


def _p(value: float) -> str:
    return "p<.001" if value < 0.001 else f"p={value:.3f}".replace("0.", ".", 1)
