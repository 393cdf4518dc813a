"""How well do a few seeds determine a mean, a middle or a rate?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gclip.errors import UsageError


class Interval(NamedTuple):
    """An estimate with the ends of its confidence interval (NaN where there is none)."""

    value: float
    low: float
    high: float


def finite(values: ArrayLike, what: str = "values") -> NDArray[np.float64]:
    """``values`` as a vector of floats. Raises UsageError on NaN and infinity.

    Missing scores must be seen, not averaged away: a diverged run has the score of chance.
    """
    vector = np.asarray(values, dtype=np.float64).reshape(-1)
    if not np.isfinite(vector).all():
        bad = int((~np.isfinite(vector)).sum())
        raise UsageError(
            f"{what} must be finite numbers, but {bad} of {vector.size} are not: "
            "give a diverged run the score of chance instead of leaving it out"
        )
    return vector


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean with Student's t interval, ``mean ± t · s / √n``.

    One value has no interval (NaN); identical values have one of width zero. No value at all: NaN.
    Raises UsageError on NaN and infinity.
    """
    vector = finite(values)
    if vector.size == 0:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(vector.mean())
    if vector.size == 1:
        return Interval(mean, math.nan, math.nan)
    if np.ptp(vector) == 0:  # rounding in the mean would leave a width of 1e-17
        value = float(vector[0])
        return Interval(value, value, value)
    half = float(stats.t.ppf(0.5 + level / 2, vector.size - 1) * stats.sem(vector))
    return Interval(mean, mean - half, mean + half)


def iqm(values: ArrayLike) -> float:
    """Interquartile mean: the mean without the lowest and highest 25 % (⌊n/4⌋ values each).

    NaN without values. Raises UsageError on NaN and infinity.
    """
    vector = finite(values)
    return float(stats.trim_mean(vector, 0.25)) if vector.size else math.nan


def wilson(count: int, n: int, level: float = 0.95) -> Interval:
    """Rate ``count / n`` with Wilson's score interval; it is honest at 0 and at n, too.

    All NaN for n = 0. Raises UsageError unless 0 ≤ count ≤ n.
    """
    if not 0 <= count <= n:
        raise UsageError(f"0 <= count <= n must hold, but got (count={count}, n={n})")
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    interval = stats.binomtest(count, n).proportion_ci(level, method="wilson")
    return Interval(count / n, float(interval.low), float(interval.high))
