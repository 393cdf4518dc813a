"""Every statistic against numbers computed another way: by hand, by SciPy, or by enumeration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gclip.errors import UsageError
from gclip.results.statistics import (
    expected_best_of_k,
    holm,
    improvement_interval,
    iqm,
    mcnemar,
    mean_interval,
    probability_of_improvement,
    seeds_needed,
    shown,
    sign_flip,
    t_interval,
    wilson,
)


def test_t_interval_by_hand() -> None:
    # mean 3, s = sqrt(2.5), n = 5, t(0.975, 4) = 2.776445 (any printed table)
    value, low, high = t_interval([1, 2, 3, 4, 5])
    half = 2.7764451052 * math.sqrt(2.5 / 5)
    assert (value, low, high) == pytest.approx((3, 3 - half, 3 + half), abs=1e-9)


def test_t_interval_is_scipys_and_that_of_what_has_no_bounds() -> None:
    values = np.random.default_rng(1).normal(size=12)
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values)[1:] == pytest.approx(tuple(reference), abs=1e-12)
    assert mean_interval(values) == t_interval(values)  # some lie outside [0, 1]


def test_one_value_has_no_interval_and_equal_values_have_one() -> None:
    assert mean_interval([0.4])[0] == 0.4
    assert math.isnan(mean_interval([0.4]).low)
    assert math.isnan(mean_interval([0.4]).high)
    assert t_interval([0.1] * 7) == (0.1, 0.1, 0.1)
    value, low, high = mean_interval([0.1] * 7)
    assert value == 0.1
    # As if seven of seven had not failed: the mean of seven 0.1 and a few 0 or 1, unseen.
    assert (low, 1 - high) == pytest.approx((0.1 * 0.025 ** (1 / 7), 0.9 * 0.025 ** (1 / 7)))
    assert all(math.isnan(part) for part in mean_interval([]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_missing_scores_are_refused_and_never_averaged_away(bad: float) -> None:
    for function in (mean_interval, t_interval, iqm, sign_flip, expected_best_of_k):
        with pytest.raises(UsageError, match="1 of 3 are not"):
            function([0.5, bad, 0.7])


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(0.7, 0.1, size=(4000, 5))
    intervals = np.array([t_interval(sample)[1:] for sample in samples])
    coverage = ((intervals[:, 0] <= 0.7) & (intervals[:, 1] >= 0.7)).mean()
    assert 0.94 < coverage < 0.96  # 4000 draws: three standard errors are 0.0103


def test_scores_at_the_bounds_have_clopper_and_pearsons_interval() -> None:
    for count, n in ((0, 3), (2, 3), (8, 10), (10, 10), (1, 25)):
        exact = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
        found = mean_interval([1.0] * count + [0.0] * (n - count))
        assert found == pytest.approx((count / n, exact.low, exact.high), abs=1e-9)


def test_the_mean_interval_is_the_quantile_over_random_weights() -> None:
    scores = np.array([0.93, 0.95, 0.95, 0.1, 0.9412, 0.97])
    weights = np.random.default_rng(0).dirichlet(np.ones(7), size=400_000)
    low = np.quantile(weights @ [0.0, *scores], 0.025)
    high = np.quantile(weights @ [1.0, *scores], 0.975)
    assert mean_interval(scores)[1:] == pytest.approx((low, high), abs=2e-3)
    # Other bounds: differences of accuracies.
    shifted = mean_interval(2 * scores - 1, bounds=(-1.0, 1.0))
    assert shifted == pytest.approx([2 * part - 1 for part in mean_interval(scores)], abs=1e-9)
    wide = mean_interval(scores, 0.99)
    assert wide.low < mean_interval(scores).low < mean_interval(scores).high < wide.high


def coverage(draw: Any, mean: float, times: int = 500) -> float:
    """How often the interval of ten runs holds the mean; it must never leave [0, 1]."""
    random = np.random.default_rng(4)
    hits = 0
    for _ in range(times):
        found = mean_interval(draw(random))
        assert 0 <= found.low <= found.value <= found.high <= 1
        hits += found.low <= mean <= found.high
    return hits / times


@pytest.mark.parametrize("noise", [0.0, 0.005])
@pytest.mark.parametrize(
    ("rate", "accuracy"), [(0.5, 0.9), (0.85, 0.9), (0.9, 0.92), (0.95, 0.95), (0.05, 0.9)]
)
def test_the_interval_holds_for_runs_that_train_or_do_not(
    rate: float, accuracy: float, noise: float
) -> None:
    def draw(random: np.random.Generator) -> Any:
        return np.where(random.random(10) < rate, accuracy, 0.1) + noise * random.normal(size=10)

    assert coverage(draw, rate * accuracy + (1 - rate) * 0.1) >= 0.93


def test_the_interval_holds_for_ordinary_runs() -> None:
    assert coverage(lambda random: random.normal(0.8, 0.05, 10), 0.8) >= 0.93
    assert coverage(lambda random: random.binomial(355, 0.95, 10) / 355, 0.95) >= 0.93


def test_the_interval_is_close_to_students_where_scores_fill_the_range() -> None:
    scores = np.random.default_rng(0).random(60)
    assert mean_interval(scores) == pytest.approx(t_interval(scores), abs=0.015)


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


def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ() -> None:
    assert mcnemar(6, 0) == 2 / 2**6
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(2 * 11 / 2**10)
    assert mcnemar(3, 3) == mcnemar(0, 0) == 1


def test_seeds_needed_grow_with_the_comparisons() -> None:
    assert [seeds_needed(m) for m in (0, 1, 25, 26, 32, 51, 52)] == [10, 10, 10, 11, 11, 11, 12]
    for comparisons in (26, 32, 200):
        n = seeds_needed(comparisons)
        best = [2.0 ** (1 - n)] * comparisons
        assert holm(best)[0] < 0.05 <= 2 * holm(best)[0]
    with pytest.raises(UsageError, match="comparisons must be at least 0, but got -1"):
        seeds_needed(-1)


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


def test_the_interval_of_a_probability_of_improvement() -> None:
    assert improvement_interval(0.5, 10, 10).low == pytest.approx(
        1 - improvement_interval(0.5, 10, 10).high
    )
    value, low, high = improvement_interval(1.0, 10, 10)
    assert (value, high) == (1.0, 1.0)
    assert 0.7 < low < 0.9, "ten of ten do not show that it always is so"
    mirrored = improvement_interval(0.0, 10, 10)
    assert (mirrored.low, mirrored.high) == (0.0, pytest.approx(1 - low))
    # The ends solve the equation of Newcombe's fifth method.
    _, low, _ = improvement_interval(0.8, 12, 9)
    more = (12 + 9) / 2 - 1
    variance = low * (1 - low) * (1 + more * ((1 - low) / (2 - low) + low / (1 + low))) / (12 * 9)
    assert (0.8 - low) / math.sqrt(variance) == pytest.approx(stats.norm.ppf(0.975))
    assert math.isnan(improvement_interval(math.nan, 0, 3).low)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_it_covers_the_truth(shift: float) -> None:
    random = np.random.default_rng(3)
    truth = stats.norm.cdf(shift / math.sqrt(2))
    hits = 0
    for _ in range(300):
        ours, theirs = random.normal(shift, 1, 10), random.normal(0, 1, 10)
        found = improvement_interval(probability_of_improvement(ours, theirs), 10, 10)
        hits += found.low <= truth <= found.high
    assert hits / 300 >= 0.93
