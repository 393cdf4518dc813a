"""The comparison's table: each cell against a computation of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gclip.errors import UsageError
from gclip.results.statistics import COLUMNS, compare_table


def frame(scores: dict[str, dict[int, float]], **columns: Any) -> pd.DataFrame:
    """Runs with the given accuracy for each strategy and seed."""
    rows = [
        {
            "key": f"{strategy}{seed}",
            "task": "digits",
            "lr": 0.2,
            "strategy": strategy,
            "seed": seed,
            "code": "",
            "status": "finished",
            "accuracy": accuracy,
            "clip_rate": 0.5,
            "verdict": "safety net",
            "seconds": 2.0,
        }
        for strategy, by_seed in scores.items()
        for seed, accuracy in by_seed.items()
    ]
    return pd.DataFrame(rows).assign(**columns)


def draws(mean: float, seed: int, n: int = 12) -> dict[int, float]:
    return dict(enumerate(np.random.default_rng(seed).normal(mean, 0.02, n)))


def row(table: pd.DataFrame, strategy: str) -> dict[str, Any]:
    return {str(k): v for k, v in table[table["strategy"] == strategy].iloc[0].items()}


def test_paired_numbers_are_scipys() -> None:
    scores = {"none": draws(0.7, 0), "norm": draws(0.75, 1), "agc": draws(0.71, 2)}
    table = compare_table(frame(scores))
    assert tuple(table.columns) == COLUMNS
    assert list(table["strategy"]) == ["norm", "agc", "none"]  # best first
    for name in ("norm", "agc"):
        ours, theirs = list(scores[name].values()), list(scores["none"].values())
        paired = stats.ttest_rel(ours, theirs)
        found = row(table, name)
        assert (found["diff_low"], found["diff_high"]) == pytest.approx(
            tuple(paired.confidence_interval(0.95))
        )
        exact = stats.permutation_test(
            (np.subtract(ours, theirs),),
            np.mean,
            permutation_type="samples",
            n_resamples=np.inf,
        )
        assert found["p"] == pytest.approx(exact.pvalue)
        assert found["pairs"] == found["n"] == 12
    p = {name: row(table, name)["p"] for name in ("norm", "agc")}
    assert row(table, "norm")["p_holm"] == pytest.approx(2 * p["norm"])
    assert row(table, "norm")["evidence"] == "better"
    assert row(table, "agc")["evidence"] == "no difference shown"
    baseline = row(table, "none")
    assert baseline["evidence"] == "baseline"
    assert math.isnan(baseline["difference"])
    assert math.isnan(baseline["p_holm"])


def test_nine_pairs_are_too_few_however_clear_and_ten_are_not() -> None:
    for n, evidence in ((9, "too few seeds to tell"), (10, "worse")):
        table = compare_table(frame({"none": draws(0.9, 0, n), "norm": draws(0.2, 1, n)}))
        assert row(table, "norm")["evidence"] == evidence


def test_only_shared_seeds_are_paired() -> None:
    scores = {"none": {0: 0.5, 1: 0.6, 2: 0.7}, "norm": {1: 0.8, 2: 0.8, 3: 0.0}}
    found = row(compare_table(frame(scores)), "norm")
    assert found["n"] == 3
    assert found["pairs"] == 2
    assert found["difference"] == pytest.approx(0.15)
    assert found["prob_improve"] == 1.0


def test_one_seed_has_no_interval_and_equal_runs_no_width() -> None:
    found = row(compare_table(frame({"none": {0: 0.5}, "norm": {0: 0.6}})), "norm")
    assert found["difference"] == pytest.approx(0.1)
    assert all(math.isnan(found[name]) for name in ("low", "high", "diff_low", "diff_high"))
    assert found["p"] == 1.0
    same = draws(0.8, 0)
    found = row(compare_table(frame({"none": same, "norm": same})), "norm")
    assert (found["difference"], found["diff_low"], found["diff_high"]) == (0, 0, 0)
    assert (found["p"], found["prob_improve"]) == (1.0, 0.5)
    assert found["evidence"] == "no difference shown"


def test_diverged_runs_count_and_failed_and_pruned_ones_do_not() -> None:
    runs = frame({"none": {0: 0.9, 1: 0.1, 2: 0.1, 3: math.nan, 4: math.nan}})
    runs["status"] = ["finished", "diverged", "diverged", "failed", "pruned"]
    found = row(compare_table(runs), "none")
    assert found["n"] == 3
    assert found["accuracy"] == pytest.approx(1.1 / 3)
    assert found["diverged"] == pytest.approx(2 / 3)
    assert (found["div_low"], found["div_high"]) == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert found["failed"] == 1
    runs.loc[2, "accuracy"] = math.nan
    with pytest.raises(UsageError, match="accuracy of run none2"):
        compare_table(runs)


def test_a_strategy_whose_runs_all_failed_is_still_a_row() -> None:
    runs = frame({"none": {0: 0.9}, "norm": {0: math.nan}})
    runs["status"] = ["finished", "failed"]
    found = row(compare_table(runs), "norm")
    assert (found["n"], found["failed"]) == (0, 1)
    assert math.isnan(found["accuracy"])
    assert found["evidence"] == "too few seeds to tell"


def test_without_the_baseline_nothing_is_claimed() -> None:
    table = compare_table(frame({"norm": draws(0.9, 0), "agc": draws(0.2, 1)}))
    assert set(table["evidence"]) == {"no run of none"}
    table = compare_table(frame({"norm": draws(0.9, 0), "agc": draws(0.2, 1)}), baseline="norm")
    assert row(table, "agc")["evidence"] == "worse"


def test_two_experiments_in_one_table_are_refused() -> None:
    runs = pd.concat([frame({"none": {0: 0.5}}), frame({"none": {0: 0.6}}, lr=0.4)])
    with pytest.raises(UsageError, match="2 results of none with seed 0, which differ in lr"):
        compare_table(runs.reset_index(drop=True))


def test_an_empty_frame_is_an_empty_table() -> None:
    empty = frame({"none": {0: 0.5}}).iloc[:0]
    assert compare_table(empty).empty
