"""What the study of budgets says below its table: how it was made, and what may be claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gclip.results.evidence import (
    BETTER,
    LESS,
    MORE,
    NOTHING,
    TOO_FEW,
    TOO_FEW_TRAINED,
    WHEN,
    WORSE,
)
from gclip.results.metric_text import interval_words
from gclip.results.statistics import rule
from gclip.studies._pairs import TESTS, better, too_few
from gclip.studies._words import listed, measured, points_of
from gclip.text.screen import plural
from gclip.training.metric import ACCURACY, Metric
from gclip.tuning.space import LR

if TYPE_CHECKING:
    from gclip.tuning.plan import Plan

RIVALS = ("none", "norm")
"""Whom the others are compared with, tuned like them, where they take part."""
FEW = 4
"""The small budget of the table, beside one trial and all of them."""


def notes(
    rows: Sequence[Mapping[str, Any]],
    plans: Mapping[str, Plan],
    chosen: Sequence[int],
    trials: int,
    split: str,
    metric: Metric,
) -> list[str]:
    """How the table was made, and what the evidence supports."""
    seeds = len(chosen)
    rates = plans["none"].space.dimensions[LR]
    lines = [
        f"Every strategy: {plural(trials, 'random trial')}; with its fields the learning rate was "
        f"searched in {rates}, the same values for all. best of 1·{FEW}·{trials}: the expected "
        f"{measured('validation', metric)} of the best of so many trials, which looks better than "
        "it is.",
        f"{measured(split, metric)}: each strategy's best trial, trained again with "
        f"{plural(seeds, 'fresh seed')}; mean with a {interval_words(metric)}. "
        "Differences are paired by seed (their intervals are each by itself). "
        "Without a word, no difference is shown. Tuning was done once: claims are about the tuned "
        "strategies in this table.",
    ]
    least = next((row["trained_from"] for row in rows if row["trained_from"] is not None), None)
    if least is not None:
        lines.append(TESTS.format(family="the table", rule=f"trained: {rule(least, metric)}"))
    unequal = [row for row in rows if row["trials"] != trials or row["trials_failed"]]
    if unequal:
        said = ", ".join(
            f"{row['strategy']} {row['trials']} ({row['trials_failed']} failed)" for row in unequal
        )
        lines.append(f"Trials are not equal, which is unfair to those with fewer: {said}.")
    comparisons = sum(row[f"{rival}_p"] is not None for row in rows for rival in RIVALS)
    return [*lines, *too_few(seeds, comparisons), *worth(rows, metric)]


def worth(rows: Sequence[Mapping[str, Any]], metric: Metric = ACCURACY) -> list[str]:
    """Which strategies are worth their tuning: what the evidence supports, and no more."""
    said: list[str] = []
    evidences = [row["none_evidence"] for row in rows]
    if any(each not in (None, "baseline", TOO_FEW) for each in evidences) and not any(
        map(better, evidences)
    ):
        said.append("No strategy is shown to be worth its tuning here.")
    for rival in RIVALS:
        for evidence, sentence in _SENTENCES.items():
            some = [row for row in rows if evidence in (row[f"{rival}_evidence"] or "").split(", ")]
            if not some:
                continue
            names = [
                f"{row['strategy']} ({points_of(row[f'{rival}_shown'], metric)})"
                if evidence in (BETTER, WORSE, MORE, LESS, NOTHING)
                else str(row["strategy"])
                for row in some
            ]
            said.append(f"{sentence.format(rival=f'tuned {rival}')} {listed(names)}.")
    return said


_SENTENCES = {
    BETTER: "Worth its tuning here: better than {rival} after as many trials:",
    MORE: "Worth its tuning here: trains more often than {rival} after as many trials:",
    f"{BETTER}{WHEN}": "Better than {rival} when trained, after as many trials:",
    WORSE: "Not worth it here: worse than {rival} after as many trials:",
    LESS: "Not worth it here: trains less often than {rival} after as many trials:",
    f"{WORSE}{WHEN}": "Worse than {rival} when trained, after as many trials:",
    NOTHING: "No difference to {rival} shown (which is no proof that there is none):",
    TOO_FEW: "Too few seeds to tell from {rival}:",
    TOO_FEW_TRAINED: "Too few runs trained to tell from {rival}:",
}
