"""Statistics for few seeds: every number with its n, its interval, and what it cannot say."""

from gclip.results.budget import expected_best_of_k
from gclip.results.intervals import Interval, iqm, mean_interval, wilson
from gclip.results.paired import holm, probability_of_improvement, sign_flip
from gclip.results.table import COLUMNS, ENOUGH_PAIRS, compare_table, shown

__all__ = [
    "COLUMNS",
    "ENOUGH_PAIRS",
    "Interval",
    "compare_table",
    "expected_best_of_k",
    "holm",
    "iqm",
    "mean_interval",
    "probability_of_improvement",
    "shown",
    "sign_flip",
    "wilson",
]
