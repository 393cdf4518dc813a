"""Is one strategy better than another, given runs that share their seeds?

Two runs of the same seed start from the same weights and see the same batches, so their difference
says more than the two scores: everything here works on those differences.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gclip.errors import UsageError
from gclip.results.intervals import finite

if TYPE_CHECKING:
    from gclip.training.metric import Direction

EXACT_PAIRS = 16
"""Up to this many pairs all 2ⁿ sign patterns are enumerated."""
RESAMPLES = 2**16 - 1


def sign_flip(differences: ArrayLike) -> float:
    """Two-sided p-value of the sign-flip permutation test that differences are symmetric about 0.

    Under the null hypothesis each difference could as well have had the other sign; p is the share
    of sign patterns whose mean is at least as far from zero as the observed one. Exact for up to 16
    pairs, else by Monte Carlo over 65,535 patterns of a fixed generator, the observed one included.
    It is no test of the mean where differences are skewed: a strategy that always scores .78
    differs "significantly" from one that scores .9 in 85 % of its runs and .1 in the others,
    though their means are equal (`gclip.results.evidence` keeps such runs apart).
    n pairs cannot give a p below 2 / 2ⁿ. NaN without pairs; 1 if all differences are zero.

    Raises:
        UsageError: NaN or infinity among the differences.

    Example:
        >>> sign_flip([0.1, 0.2, 0.1, 0.3, 0.2, 0.1])  # 2 / 2⁶: six pairs can show no less
        0.03125
        >>> sign_flip([0.1, -0.1])
        1.0
    """
    vector = finite(differences, "differences")
    n = vector.size
    if n == 0:
        return math.nan
    if n <= EXACT_PAIRS:
        # A pattern and its opposite are equally far from zero: the first sign may stay as it is.
        bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
        hits, total = _as_far(vector, _signs(bits)), bits.shape[0]
    else:
        hits, total = _as_far(vector, _random_signs(n)) + 1, RESAMPLES + 1
    return float(hits / total)


@functools.lru_cache(maxsize=1)  # a table tests strategy after strategy on as many pairs
def _random_signs(n: int) -> NDArray[np.float64]:
    """1 and -1, a row a pattern: the same at every call."""
    return _signs(np.random.default_rng(0).integers(0, 2, size=(RESAMPLES, n)))


def _signs(bits: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(1 - 2 * bits, dtype=np.float64)


def _as_far(vector: NDArray[np.float64], signs: NDArray[np.float64]) -> int:
    """How many sign patterns (rows of 1 and -1) give a sum as far from zero as no flip, or more."""
    # Tolerance: sums that are equal on paper differ in the last bit with the order of addition.
    least = abs(vector.sum()) - 1e-12 * np.abs(vector).sum()
    return int((np.abs(signs @ vector) >= least).sum())


def mcnemar(ours_only: int, theirs_only: int) -> float:
    """Two-sided p-value of McNemar's exact test that both train equally often.

    Args:
        ours_only, theirs_only: pairs in which one run trained and the other did not. The other
            pairs say nothing. Without any the p-value is 1.
    """
    pairs = ours_only + theirs_only
    as_far = sum(math.comb(pairs, k) for k in range(min(ours_only, theirs_only) + 1))
    return float(min(1.0, 2 * as_far / 2**pairs))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the given order; NaN entries stay NaN and do not count.

    Raises:
        UsageError: a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    if ((p[tested] < 0) | (p[tested] > 1)).any():
        raise UsageError(f"p-values must be in [0, 1], but got {p[tested].tolist()}")
    corrected = np.full(p.shape, np.nan)
    ranked = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(ranked.size, 0, -1)
    corrected[ranked] = np.minimum(np.maximum.accumulate(p[ranked] * factors), 1.0)
    return [float(value) for value in corrected]


def probability_of_improvement(
    scores: ArrayLike, baseline: ArrayLike, better: Direction = "higher"
) -> float:
    """The chance that a run beats a run of the baseline, over all pairs of runs; ties count half.

    This is U / (m · n) of Mann and Whitney, as in Agarwal et al. (2021), arXiv:2108.13264.
    NaN if either side is empty. ``better`` is the metric's direction.

    Raises:
        UsageError: NaN or infinity among the scores.
    """
    ours, theirs = finite(scores, "scores"), finite(baseline, "scores")
    if ours.size == 0 or theirs.size == 0:
        return math.nan
    wins = ours[:, None] > theirs if better == "higher" else ours[:, None] < theirs
    ties = ours[:, None] == theirs
    return float((wins + 0.5 * ties).mean())
