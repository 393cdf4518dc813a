"""The table of a comparison, and what stands under it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gclip.clipping.verdicts import DEFINITION, MOSTLY_NOT_FINITE, MOSTLY_SKIPPED
from gclip.results.metric_text import (
    ends_text,
    interval_text,
    named,
    p_text,
    score_text,
    worst_words,
)
from gclip.text.screen import percent, plural
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    import pandas as pd

    from gclip.training.metric import Metric

_LONG = 24
"""A baseline whose spelling is longer than this is named below the table."""


def comparison_table(
    table: pd.DataFrame, baseline: str, split: str = "test", metric: Metric | None = None
) -> TextTable:
    """`gclip.results.statistics.compare_table` as text, the best first.

    Args:
        table: of `compare_table`.
        baseline: what its differences are to.
        split: that was scored.
        metric: of the runs; accuracy if left out.
    """
    metric = _or_accuracy(metric)
    versus = baseline if len(baseline) <= _LONG else "baseline"
    text_table = TextTable(
        columns=[
            Column(heading="strategy", words=True),
            Column(heading=f"{split} {metric.name}"),
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
        text_table.add(*_cells({str(key): value for key, value in row.items()}, metric))
    return text_table


def notes(
    table: pd.DataFrame,
    baseline: str,
    same: Iterable[Sequence[str]] = (),
    metric: Metric | None = None,
) -> list[str]:
    """The lines below: which rows are one and the same, what the numbers are, what tests test.

    Args:
        table: of `gclip.results.statistics.compare_table`.
        baseline: what its differences are to.
        same: groups of strategies that made the same runs.
        metric: of the runs; accuracy if left out.
    """
    said = [
        f"{_listed(group)} made the same runs: every loss and score is equal to the last bit."
        for group in same
    ]
    if len(baseline) > _LONG:
        said.append(f"baseline: {baseline}")
    return [*said, *filter(None, (footnote(table, metric), too_few(table)))]


def footnote(table: pd.DataFrame, metric: Metric | None = None) -> str:
    """What the numbers of a `compare_table` are, and what its tests test."""
    from gclip.results.statistics import rule

    metric = _or_accuracy(metric)
    if math.isfinite(metric.low) and math.isfinite(metric.high):
        interval = "95 % interval, which holds where some seeds do not train, too"
    else:
        interval = "95 % t interval, which is too narrow where some seeds do not train"
    said = [f"{named(metric)}: the mean [{interval}]."]
    if len(table):
        said.append(
            f"trained: {rule(float(table['trained_from'].iloc[0]), metric)}; IQM: interquartile "
            "mean of those."
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
    said.append(f"A diverged run counts as {worst_words(metric)}" + _diverged(table) + ".")
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


def _or_accuracy(metric: Metric | None) -> Metric:
    # Training is not loaded for a command that shows no table.
    from gclip.training.metric import ACCURACY

    return ACCURACY if metric is None else metric


def _cells(row: dict[str, Any], metric: Metric) -> list[str]:
    n, failed = int(row["n"]), int(row.get("failed", 0))
    limited = row["limited_rate"]
    return [
        row["strategy"],
        score_text(metric, row["score"]) + ends_text(metric, row["low"], row["high"]),
        f"{int(row['trained'])}/{n}" + (f" ({failed} failed)" if failed else ""),
        score_text(metric, row["iqm_trained"]),
        _difference(metric, *_shown(row)),
        _evidence(row),
        "–" if math.isnan(limited) else f"{percent(limited)} %",
        verdict_text(row, "skipped_rate", "not_finite_rate"),
        f"{row['seconds']:.1f}" if n else "–",
    ]


def _shown(row: dict[str, Any]) -> tuple[float, float, float]:
    from gclip.results.statistics import shown_difference

    return shown_difference(
        {**row, "trained_low": row["diff_trained_low"], "trained_high": row["diff_trained_high"]},
        low="diff_low",
        high="diff_high",
    )


def _difference(metric: Metric, value: float, low: float, high: float) -> str:
    """``+1.2 ± 0.6`` where the interval is symmetric, ``+76.0 [21,88]`` where it is not."""
    if math.isnan(value):
        return "–"
    return ("+" if value > 0 else "") + interval_text(metric, value, low, high)


def _evidence(row: dict[str, Any]) -> str:
    """What may be claimed, with its p-value; never a p-value where n is too small for one."""
    from gclip.results.statistics import CLAIMS, NOTHING

    said = str(row["evidence"])
    if said == NOTHING or any(claim in CLAIMS for claim in said.split(", ")):
        return f"{said}, {p_text(row['p_holm'])}"
    return said


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}"
