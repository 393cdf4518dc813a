"""What does a budget of k trials buy?

The best of K single-seed trials looks better than it is, and more so the larger K; comparing two
methods at their best of K compares their budgets, too. The expected best of k, for every k, shows
both methods at every budget (Dodge et al. 2019, arXiv:1909.03004, here without replacement).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gclip.results.intervals import finite

if TYPE_CHECKING:
    from gclip.training.metric import Direction

BAND = (0.1, 0.9)
"""The shares of choices of k trials that a curve's band bounds."""


@dataclass(frozen=True)
class BudgetCurve:
    """What a budget of k = 1 … n trials buys: shape (n,) each.

    Attributes:
        mean: the expected best of k trials.
        low, high: ten and ninety percent of the choices of k out of the n trials are at or below.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def as_dict(self) -> dict[str, list[float]]:
        """For JSON."""
        return {name: getattr(self, name).tolist() for name in ("mean", "low", "high")}


def expected_best_of_k(values: ArrayLike, better: Direction = "higher") -> NDArray[np.float64]:
    """E[best of k] for k = 1 … n, from the values of n trials; shape (n,).

    ``Σᵢ C(i-1, k-1) / C(n, k) · v₍ᵢ₎`` over the sorted values: the mean of the maximum over all
    subsets of k trials; of the minimum where ``better`` is ``lower``. Valid for random search only
    (trials exchangeable).

    Raises:
        UsageError: NaN or infinity: give a diverged trial the metric's worst value.

    Example:
        >>> expected_best_of_k([1.0, 2.0, 3.0], better="lower").tolist()[::2]
        [2.0, 1.0]
    """
    sign = 1.0 if better == "higher" else -1.0
    ordered = np.sort(sign * finite(values, "trial values", worst="the metric's worst value"))
    n = ordered.size
    expected = np.empty(n)
    for k in range(1, n + 1):
        # Weights by recurrence from the top, w_n = k / n and w_{i-1} = w_i (i - k) / (i - 1):
        # the binomials themselves overflow floats beyond n ≈ 1000.
        i = np.arange(n, k, -1)
        weights = np.cumprod(np.concatenate([[k / n], (i - k) / (i - 1)]))
        expected[k - 1] = weights @ ordered[k - 1 :][::-1]
    return sign * expected


def best_of_k_quantile(scores: Sequence[float], share: float) -> NDArray[np.float64]:
    """The smallest score that the best of k reaches or stays below in a `share` of all choices of k
    out of the n trials, for k = 1 … n: the i-th lowest is at or above the best in C(i, k)/C(n, k).
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = ordered.size
    found = np.empty(n)
    for k in range(1, n + 1):
        total = math.comb(n, k)
        # Whole numbers: exact, and never too large.
        place = next(i for i in range(k, n + 1) if math.comb(i, k) >= share * total)
        found[k - 1] = ordered[place - 1]
    return found


def budget_curve(scores: Sequence[float], better: Direction = "higher") -> BudgetCurve:
    """The budget curve of the scores of n random trials, exactly, over all choices of k of them.

    Args:
        scores: one a trial.
        better: the metric's direction.
    """
    if better == "lower":  # the least of k is the opposite of the highest of the opposites
        mirrored = budget_curve([-score for score in scores])
        return BudgetCurve(-mirrored.mean, -mirrored.high, -mirrored.low)
    low, high = (best_of_k_quantile(scores, share) for share in BAND)
    return BudgetCurve(expected_best_of_k(scores), low, high)
