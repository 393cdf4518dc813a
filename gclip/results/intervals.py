"""How well do a few seeds determine a mean, a middle or a rate?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import interpolate, optimize, special

from gclip.errors import UsageError


class Interval(NamedTuple):
    """An estimate with the ends of its confidence interval (NaN where there is none)."""

    value: float
    low: float
    high: float


def finite(
    values: ArrayLike, what: str = "values", *, worst: str = "the score of chance"
) -> NDArray[np.float64]:
    """``values`` as a vector of floats.

    Missing scores must be seen, not averaged away: a diverged run has the metric's worst value,
    which `worst` names.

    Raises:
        UsageError: NaN or infinity among the values.
    """
    vector = np.asarray(values, dtype=np.float64).reshape(-1)
    if not np.isfinite(vector).all():
        bad = int((~np.isfinite(vector)).sum())
        raise UsageError(
            f"{what} must be finite numbers, but {bad} of {vector.size} are not: "
            f"give a diverged run {worst} instead of leaving it out"
        )
    return vector


def mean_interval(
    values: ArrayLike, level: float = 0.95, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Mean of scores that cannot leave ``bounds``, with an interval that holds for any of them.

    Where runs either train or end near chance, Student's t interval covers the mean far too rarely
    (as little as 41 % of the time for ten runs): ten runs that all trained do not rule out that one
    in four would not. This is the interval of Gaffke (2005), Math. Methods Statist. 14(4), also
    that of Learned-Miller & Thomas (2019), arXiv:1905.06208: the lower end is the (1 - level) / 2
    quantile of the values' mean under random weights, uniform on the simplex, with the lower bound
    as one value more; the upper end likewise. For values at the bounds alone it is Clopper &
    Pearson's interval; no distribution is known for which it covers less than ``level``. It lies
    within the bounds, and equal values have one with a width.

    Without two finite bounds (losses, returns) no interval holds for every distribution: a rare
    value far away, that no run has shown, may move the mean as far as it likes (Bahadur & Savage,
    1956, Ann. Math. Statist. 27(4)). So these get `t_interval`, as far as it lies within the
    bounds, and so do values outside the bounds; it is good for values near a normal distribution,
    and too narrow where some runs do not train.
    One value has no interval (NaN); no value at all: NaN.

    Raises:
        UsageError: NaN or infinity among the values.

    Example:
        >>> mean, low, high = mean_interval([0.9, 0.91, 0.1, 0.92])  # one run did not train
        >>> f"{mean:.4f} [{low:.2f}, {high:.2f}]"
        '0.7075 [0.21, 0.94]'
    """
    vector = finite(values)
    least, most = bounds
    if not (math.isfinite(least) and math.isfinite(most)):
        return within(t_interval(vector, level), bounds)
    if vector.size < 2 or vector.min() < least or vector.max() > most:
        return t_interval(vector, level)
    tail = (1 - level) / 2
    low = _weighted_quantile(vector - least, tail)
    high = _weighted_quantile(most - vector, tail)
    # Equal values have a mean without the last bit's error of adding them up.
    mean = float(vector[0]) if np.ptp(vector) == 0 else float(vector.mean())
    return Interval(mean, least + low, most - high)


def _weighted_quantile(above: NDArray[np.float64], tail: float) -> float:
    """The ``tail`` quantile of the mean of (0, *above) under weights uniform on the simplex.

    ``above`` are at least two values >= 0. Such a mean has a B-spline as its density, whose knots
    are the values (Curry & Schoenberg, 1966): exact, and stable with ties.
    """
    top = float(above.max())
    if top == 0:
        return 0.0
    knots = np.concatenate([[0.0], np.sort(above)]) / top
    n = above.size
    if knots[1] == 1.0:  # all equal, where the spline would jump at its end
        return top * float(tail ** (1 / n))
    # The basis spline over all the knots has the integral 1 / n.
    below = interpolate.BSpline.basis_element(knots, extrapolate=False).antiderivative()

    def excess(at: float) -> float:
        return 1 - tail if at == 1.0 else n * float(below(at)) - tail

    return top * float(optimize.brentq(excess, 0.0, 1.0, xtol=1e-12))


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean with Student's t interval, ``mean ± t · s / √n``, for values near a normal distribution.

    One value has no interval (NaN); identical values have one of width zero. No value at all: NaN.

    Raises:
        UsageError: NaN or infinity among the values.
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
    # scipy.stats has the same, and takes as long to load as all else of a table.
    error = np.std(vector, ddof=1) / np.sqrt(vector.size)
    half = float(special.stdtrit(vector.size - 1, 0.5 + level / 2) * error)
    return Interval(mean, mean - half, mean + half)


def within(interval: Interval, bounds: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """The interval as far as it lies in the metric's range; NaN stays NaN."""
    value, low, high = interval
    if math.isnan(low):
        return interval
    return Interval(value, max(low, bounds[0]), min(high, bounds[1]))


def iqm(values: ArrayLike) -> float:
    """Interquartile mean: the mean without the lowest and highest 25 % (⌊n/4⌋ values each).

    NaN without values.

    Raises:
        UsageError: NaN or infinity among the values.
    """
    vector = finite(values)
    if not vector.size:
        return math.nan
    cut = vector.size // 4
    return float(np.sort(vector)[cut : vector.size - cut].mean())


def wilson(count: int, n: int, level: float = 0.95) -> Interval:
    """Rate ``count / n`` with Wilson's score interval; it is honest at 0 and at n, too.

    All NaN for n = 0.

    Raises:
        UsageError: not 0 ≤ count ≤ n.
    """
    if not 0 <= count <= n:
        raise UsageError(f"0 <= count <= n must hold, but got (count={count}, n={n})")
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    z, rate = float(special.ndtri(0.5 + level / 2)), count / n
    center = (2 * count + z**2) / (2 * (n + z**2))
    half = z / (2 * (n + z**2)) * math.sqrt(4 * n * rate * (1 - rate) + z**2)
    return Interval(rate, center - half if count else 0.0, center + half if count < n else 1.0)


def improvement_interval(probability: float, n: int, m: int, level: float = 0.95) -> Interval:
    """A probability of improvement, U / (m · n) of Mann and Whitney, with Newcombe's interval.

    Method 5 of Newcombe (2006), Statist. Med. 25(4), 559-573: the ends are where the distance to
    the estimate is as large as the standard error *there* (as in Wilson's interval of a share), so
    that it stays within [0, 1] and has a width at both ends. NaN for a side without a run.

    Args:
        probability: of `gclip.results.paired.probability_of_improvement`.
        n, m: how many runs of ours and of the baseline.
        level: of confidence.

    Example:
        >>> _, low, high = improvement_interval(1.0, 10, 10)
        >>> f"{low:.2f} {high:.2f}"
        '0.80 1.00'
    """
    if math.isnan(probability) or n < 1 or m < 1:
        return Interval(math.nan, math.nan, math.nan)
    z = float(special.ndtri(0.5 + level / 2))
    more = (n + m) / 2 - 1

    def excess(at: float) -> float:
        spread = 1 + more * ((1 - at) / (2 - at) + at / (1 + at))
        return float((at - probability) ** 2 - z**2 * at * (1 - at) * spread / (m * n))

    # At 0 and at 1 the standard error is 0, which would be a root where the estimate is there.
    edge = 1e-9
    low = 0.0 if probability == 0 else optimize.brentq(excess, 0.0, min(probability, 1 - edge))
    high = 1.0 if probability == 1 else optimize.brentq(excess, max(probability, edge), 1.0)
    low, high = float(low), float(high)
    return Interval(probability, low, high)
