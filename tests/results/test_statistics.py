"""Every statistic against numbers computed another way: by hand, by SciPy, or by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from gclip.errors import UsageError
from gclip.results.statistics import (
    expected_best_of_k,
    holm,
    iqm,
    mean_interval,
    probability_of_improvement,
    shown,
    sign_flip,
    wilson,
)


def test_mean_interval_by_hand() -> None:
    # mean 3, s = sqrt(2.5), n = 5, t(0.975, 4) = 2.776445 (any printed table)
    value, low, high = mean_interval([1, 2, 3, 4, 5])
    half = 2.7764451052 * math.sqrt(2.5 / 5)
    assert (value, low, high) == pytest.approx((3, 3 - half, 3 + half), abs=1e-9)


def test_mean_interval_is_scipys() -> None:
    values = np.random.default_rng(1).normal(size=12)
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values)[1:] == pytest.approx(tuple(reference), abs=1e-12)


def test_one_value_has_no_interval_and_equal_values_one_without_width() -> None:
    assert mean_interval([0.4])[0] == 0.4
    assert math.isnan(mean_interval([0.4]).low)
    assert math.isnan(mean_interval([0.4]).high)
    assert mean_interval([0.1] * 7) == (0.1, 0.1, 0.1)
    assert all(math.isnan(part) for part in mean_interval([]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_missing_scores_are_refused_and_never_averaged_away(bad: float) -> None:
    for function in (mean_interval, iqm, sign_flip, expected_best_of_k):
        with pytest.raises(UsageError, match="1 of 3 are not"):
            function([0.5, bad, 0.7])


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(0.7, 0.1, size=(4000, 5))
    intervals = np.array([mean_interval(sample)[1:] for sample in samples])
    coverage = ((intervals[:, 0] <= 0.7) & (intervals[:, 1] >= 0.7)).mean()
    assert 0.94 < coverage < 0.96  # 4000 draws: three standard errors are 0.0103


def test_iqm_by_hand() -> None:
    assert iqm([1, 2, 3, 4]) == 2.5
    assert iqm([100, 1, 2, 3, 4, 5, -100, 6]) == 3.5  # two from each end go
    assert iqm([1, 2, 9]) == 4  # floor(3/4) = 0: nothing goes
    assert math.isnan(iqm([]))


def test_wilson_against_its_formula_and_at_the_ends() -> None:
    z = 1.959963984540054
    for count, n in ((0, 10), (3, 10), (10, 10), (1, 1), (7, 33)):
        p = count / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        expected = (p, max(0, centre - half), min(1, centre + half))
        assert wilson(count, n) == pytest.approx(expected, abs=1e-9)
    assert wilson(0, 10).high == pytest.approx(0.2775, abs=1e-4)  # Brown, Cai, DasGupta (2001)
    assert all(math.isnan(part) for part in wilson(0, 0))
    with pytest.raises(UsageError, match="count=3, n=2"):
        wilson(3, 2)


@pytest.mark.parametrize("n", [2, 3, 5, 9, 12])
def test_sign_flip_is_scipys_exact_test(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1, size=n)
    reference = stats.permutation_test(
        (differences,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert sign_flip(differences) == pytest.approx(reference.pvalue, abs=1e-12)


def test_sign_flip_by_enumeration_with_ties_and_zeros() -> None:
    differences = [0.1, 0.2, 0.3, -0.1, 0.0, 0.2]  # sums that tie only up to rounding
    tenths = np.array([1, 2, 3, -1, 0, 2])
    patterns = itertools.product((1, -1), repeat=6)
    hits = sum(abs(np.dot(signs, tenths)) >= tenths.sum() for signs in patterns)
    assert sign_flip(differences) == hits / 64


def test_what_few_pairs_can_say() -> None:
    assert sign_flip([1, 2, 3, 4, 5]) == 0.0625  # 2 / 2^5, the least that five pairs can give
    assert sign_flip([0.5]) == 1
    assert sign_flip([0.0] * 10) == 1
    assert math.isnan(sign_flip([]))


def test_sign_flip_beyond_enumeration_agrees_with_it_and_repeats() -> None:
    differences = np.random.default_rng(3).normal(0.8, 1, size=20)
    p = sign_flip(differences)
    signs = 1 - 2 * ((np.arange(2**19)[:, None] >> np.arange(20)) & 1)
    exact = float((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean())
    assert 0.005 < exact < 0.2
    assert abs(p - exact) < 4 * math.sqrt(exact * (1 - exact) / 65536)
    assert sign_flip(differences) == p
    assert sign_flip([1.0] * 40) == 1 / 65536  # never zero: the observed pattern counts


def test_sign_flip_keeps_its_level() -> None:
    samples = np.random.default_rng(5).normal(size=(2000, 8))
    rate = np.mean([sign_flip(sample) <= 0.05 for sample in samples])
    assert 0.03 < rate <= 0.062


def test_holm_by_hand_with_gaps() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    corrected = holm([math.nan, 0.5, 0.6, 0.01])
    assert math.isnan(corrected[0])
    assert corrected[1:] == pytest.approx([1.0, 1.0, 0.03])
    assert holm([]) == []
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        holm([1.5])


def test_probability_of_improvement_is_mann_whitneys_u() -> None:
    assert probability_of_improvement([1, 2], [0, 1]) == (1 + 0.5 + 1 + 1) / 4
    assert probability_of_improvement([1, 1], [1, 1]) == 0.5
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 6, 9), rng.integers(0, 6, 14)
    u = stats.mannwhitneyu(ours, theirs).statistic
    assert probability_of_improvement(ours, theirs) == pytest.approx(u / (9 * 14))
    assert math.isnan(probability_of_improvement([], [1]))


def test_best_of_k_is_the_mean_of_all_subsets() -> None:
    values = [0.3, 0.9, 0.1, 0.5, 0.5, 0.8, 0.1]
    for k, expected in enumerate(expected_best_of_k(values), start=1):
        subsets = [max(chosen) for chosen in itertools.combinations(values, k)]
        assert expected == pytest.approx(np.mean(subsets), abs=1e-12)


def test_best_of_k_is_the_designs_formula_for_many_trials() -> None:
    values = np.sort(np.random.default_rng(2).random(3000))
    curve = expected_best_of_k(values)
    for k in (1, 2, 50, 1500, 3000):
        total = math.comb(3000, k)
        weights = [math.comb(i - 1, k - 1) / total for i in range(1, 3001)]
        assert curve[k - 1] == pytest.approx(float(np.dot(weights, values)), abs=1e-9)
    assert (np.diff(curve) >= -1e-12).all()
    assert expected_best_of_k([]).shape == (0,)


def test_numbers_for_people() -> None:
    assert shown(0.12345) == "0.123"
    assert shown(math.nan) == "n/a"
