"""Statistics for few seeds: every number with its n, its interval, and what it cannot say."""

from gclip.results.budget import expected_best_of_k
from gclip.results.evidence import (
    CLAIMS,
    ENOUGH_PAIRS,
    NOTHING,
    SIGNIFICANT,
    TOO_FEW,
    compare_pairs,
    out_of_reach,
    seeds_needed,
    shown_difference,
)
from gclip.results.intervals import (
    Interval,
    improvement_interval,
    iqm,
    mean_interval,
    t_interval,
    wilson,
    within,
)
from gclip.results.paired import holm, mcnemar, probability_of_improvement, sign_flip
from gclip.results.table import COLUMNS, compare_table, shown
from gclip.results.trained import rule, trained, trained_from, trained_summary

__all__ = [
    "CLAIMS",
    "COLUMNS",
    "ENOUGH_PAIRS",
    "NOTHING",
    "SIGNIFICANT",
    "TOO_FEW",
    "Interval",
    "compare_pairs",
    "compare_table",
    "expected_best_of_k",
    "holm",
    "improvement_interval",
    "iqm",
    "mcnemar",
    "mean_interval",
    "out_of_reach",
    "probability_of_improvement",
    "rule",
    "seeds_needed",
    "shown",
    "shown_difference",
    "sign_flip",
    "t_interval",
    "trained",
    "trained_from",
    "trained_summary",
    "wilson",
    "within",
]
