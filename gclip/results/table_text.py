"""The table of a comparison, and what stands under it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gclip.clipping.verdicts import DEFINITION, MOSTLY_NOT_FINITE, MOSTLY_SKIPPED
from gclip.text.screen import percent, plural
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    import pandas as pd

_LONG = 24
"""A baseline whose spelling is longer than this is named below the table."""


def comparison_table(table: pd.DataFrame, baseline: str, split: str = "test") -> TextTable:
    """`gclip.results.statistics.compare_table` as text, the best first."""
    versus = baseline if len(baseline) <= _LONG else "baseline"
    text_table = TextTable(
        columns=[
            Column(heading="strategy", words=True),
            Column(heading=f"{split} accuracy"),
            Column(heading="trained"),
            Column(heading="IQM", leaves=3),
            Column(heading=f"vs {versus}"),
            Column(heading="evidence", words=True, least=12),
            Column(heading="limited", leaves=1),
            Column(heading="verdict", words=True, leaves=2, least=9),
            Column(heading="s", leaves=4),
        ]
    )
    for row in table.to_dict("records"):
        text_table.add(*_cells({str(key): value for key, value in row.items()}))
    return text_table


def notes(table: pd.DataFrame, baseline: str, same: Iterable[Sequence[str]] = ()) -> list[str]:
    """The lines below: which rows are one and the same, what the numbers are, what tests test.

    Args:
        table: of `gclip.results.statistics.compare_table`.
        baseline: what its differences are to.
        same: groups of strategies that made the same runs.
    """
    said = [
        f"{_listed(group)} made the same runs: every loss and score is equal to the last bit."
        for group in same
    ]
    if len(baseline) > _LONG:
        said.append(f"baseline: {baseline}")
    return [*said, *filter(None, (footnote(table), too_few(table)))]


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
    said.append(f"{DEFINITION} s: seconds a run.")
    return " ".join(said)


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


def verdict_text(row: dict[str, Any], skipped: str, not_finite: str) -> str:
    """The verdict; where it is about another share than that of limited steps, with that one.

    Args:
        row: holds ``verdict``.
        skipped, not_finite: the names that these shares have in it.
    """
    verdict = str(row.get("verdict") or "–")
    about = {MOSTLY_SKIPPED: skipped, MOSTLY_NOT_FINITE: not_finite}.get(verdict)
    return verdict if about is None else f"{verdict}, {percent(row[about])} %"


def _cells(row: dict[str, Any]) -> list[str]:
    n, failed = int(row["n"]), int(row.get("failed", 0))
    limited = row["limited_rate"]
    return [
        row["strategy"],
        percent(row["accuracy"]) + _ends(row["low"], row["high"]),
        f"{int(row['trained'])}/{n}" + (f" ({failed} failed)" if failed else ""),
        percent(row["iqm_trained"]),
        _difference(*_shown(row)),
        _evidence(row),
        "–" if math.isnan(limited) else f"{percent(limited)} %",
        verdict_text(row, "skipped_rate", "not_finite_rate"),
        f"{row['seconds']:.1f}" if n else "–",
    ]


def _ends(low: float, high: float) -> str:
    """`` [66,97]``: whole percents, because so few runs say no more."""
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


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}"
