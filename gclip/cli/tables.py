"""The table of a comparison, narrow enough for 100 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gclip.cli.screen import GAP, percent, plain_table, plural

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

_STRATEGY, _EVIDENCE, _VERDICT = 0, 5, 7
_LEAST = {_STRATEGY: 11, _EVIDENCE: 10, _VERDICT: 9}
_FIRST_OUT = (8, _VERDICT, 6)  # seconds, verdict, clip rate: `--json` has them
_WRAPPED = 100


def footnote(table: pd.DataFrame) -> str:
    """What the numbers of a `compare_table` are, and what its tests test."""
    from gclip.results.statistics import rule

    said = [
        "Accuracy in %: the mean [95 % interval, which holds where some seeds do not train, too]."
    ]
    if len(table):
        said.append(
            f"trained: {rule(float(table['trained_from'].iloc[0]))}; IQM: interquartile mean of "
            "those."
        )
    if (table["trained"] == table["n"]).all():
        said.append(
            "Differences are paired by seed, with a t interval; better, worse: a sign-flip test "
            "(are they symmetric about 0?), Holm-corrected over the table."
        )
    else:
        said.append(
            "Differences are paired by seed, of the pairs of which both runs trained (±: t "
            "interval) or, where those are fewer than six, of all [95 % interval]. Some runs "
            "did not train, so nothing is claimed about means: trains more or less often: "
            "McNemar's exact test on the pairs of which one run trained; better or worse when "
            "trained: a sign-flip test on those of which both did (are they symmetric about "
            "0?); Holm-corrected over all tests."
        )
    said.append("A diverged run counts as chance" + _diverged(table) + ".")
    said.append("clipped: share of the steps; s: seconds a run.")
    return textwrap.fill(" ".join(said), _WRAPPED)


def _diverged(table: pd.DataFrame) -> str:
    some = table[table["diverged"] > 0]
    counts = [
        f"{row['strategy']} {round(row['diverged'] * row['n'])}" for row in some.to_dict("records")
    ]
    return f" (diverged: {', '.join(counts)})" if counts else ""


def too_few(table: pd.DataFrame) -> str:
    """One sentence where a table has too few seeds to show anything: how many would do."""
    from gclip.results.statistics import TOO_FEW, seeds_needed

    few = table[table["evidence"] == TOO_FEW]
    if few.empty:
        return ""
    comparisons = max(int((table["pairs"] > 0).sum()), len(few))
    needed = seeds_needed(comparisons)
    return (
        f"With {plural(int(few['pairs'].max()), 'seed')} and {plural(comparisons, 'comparison')} "
        f"no difference can be shown, however large; with {needed} it can: --seeds {needed}."
    )


def comparison_table(
    table: pd.DataFrame, baseline: str, split: str = "test", width: int = 100
) -> Table:
    """`gclip.results.statistics.compare_table` as text `width` columns wide, the best first."""
    headings: list[str] = [
        "strategy",
        f"{split} accuracy",
        "trained",
        "IQM",
        f"vs {baseline}" if len(baseline) <= 10 else "vs baseline",
        "evidence",
        "clipped",
        "verdict",
        "s",
    ]
    rows = [
        _cells({str(key): value for key, value in row.items()}) for row in table.to_dict("records")
    ]
    kept = _fitting([headings, *rows], width)
    headings = [headings[index] for index in kept]
    rows = [[cells[index] for index in kept] for cells in rows]
    drawn = plain_table(*headings)
    for place, size in enumerate(_widths([headings, *rows], kept, width)):
        column, wraps = drawn.columns[place], kept[place] in _LEAST
        column.width, column.no_wrap, column.overflow = size, not wraps, "fold"
        column.justify = "left" if wraps else "right"
    for row in rows:
        drawn.add_row(*row)
    return drawn


def _fitting(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns for which there is room: in a narrow table the last ones are left out."""
    sizes = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    kept = list(range(len(sizes)))
    for index in _FIRST_OUT:
        least = sum(min(sizes[i], _LEAST.get(i, sizes[i])) for i in kept) + GAP * (len(kept) - 1)
        if least > width:
            kept.remove(index)
    return kept


def _widths(rows: Sequence[Sequence[str]], kept: Sequence[int], width: int) -> list[int]:
    """The columns' widths: numbers are never cut, words wrap where there is too little room."""
    sizes = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    too_much = sum(sizes) + GAP * (len(sizes) - 1) - width
    for index in (_VERDICT, _EVIDENCE, _STRATEGY):
        if index not in kept:
            continue
        place = kept.index(index)
        given = min(max(too_much, 0), max(sizes[place] - _LEAST[index], 0))
        sizes[place] -= given
        too_much -= given
    return sizes


def _cells(row: dict[str, Any]) -> list[str]:
    n, failed = int(row["n"]), int(row.get("failed", 0))
    return [
        row["strategy"],
        percent(row["accuracy"]) + _ends(row["low"], row["high"]),
        f"{int(row['trained'])}/{n}" + (f" ({failed} failed)" if failed else ""),
        percent(row["iqm_trained"]),
        _difference(*_shown(row)),
        _evidence(row),
        f"{percent(row['clip_rate'], 0)} %" if n else "–",
        row["verdict"] or "–",
        f"{row['seconds']:.1f}" if n else "–",
    ]


def _ends(low: float, high: float) -> str:
    """`` [66, 97]``: whole percents, because so few runs say no more."""
    return "" if math.isnan(low) else f" [{percent(low, 0)},{percent(high, 0)}]"


def _shown(row: dict[str, Any]) -> tuple[float, float, float]:
    from gclip.results.statistics import shown_difference

    return shown_difference(
        {**row, "trained_low": row["diff_trained_low"], "trained_high": row["diff_trained_high"]},
        low="diff_low",
        high="diff_high",
    )


def _difference(value: float, low: float, high: float) -> str:
    """``+1.2 ± 0.6`` where the interval is symmetric, ``+76.0 [21,88]`` where it is not."""
    if math.isnan(value):
        return "–"
    text = ("+" if value > 0 else "") + percent(value)
    if math.isnan(low) or abs(low + high - 2 * value) > 1e-9:
        return text + _ends(low, high)
    return f"{text} ± {percent((high - low) / 2)}"


def _evidence(row: dict[str, Any]) -> str:
    """What may be claimed, with its p-value; never a p-value where n is too small for one."""
    from gclip.results.statistics import CLAIMS, NOTHING

    said = str(row["evidence"])
    if said == NOTHING or any(claim in CLAIMS for claim in said.split(", ")):
        return f"{said}, {_p(row['p_holm'])}"
    return said


def _p(value: float) -> str:
    return "p<.001" if value < 0.001 else f"p={value:.3f}".replace("0.", ".", 1)
