"""A loss and a return are compared as an accuracy is: by their direction, range and worst value."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gclip.errors import UsageError
from gclip.execution.comparison import Comparison
from gclip.execution.progress import epoch_text
from gclip.results import Store, load, load_curves, metric_of
from gclip.results.budget import budget_curve
from gclip.results.statistics import (
    compare_table,
    expected_best_of_k,
    mean_interval,
    probability_of_improvement,
    rule,
    t_interval,
    trained,
    trained_from,
)
from gclip.results.table_text import comparison_table, notes
from gclip.training import Progress, RunConfig, RunResult
from gclip.training.metric import ACCURACY, Metric
from tests.measured import METRICS, MSE, RETURN, assert_says_nothing_of_accuracy, frame, scores


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_best_comes_first_and_claims_follow_the_direction(metric: Metric) -> None:
    table = compare_table(frame(metric))
    assert list(table["strategy"]) == ["agc", "norm", "none"]
    assert list(table["evidence"]) == ["better", "better", "baseline"]
    agc = table.iloc[0]
    ours, theirs = scores(metric, "agc"), scores(metric, "none")
    assert agc["score"] == pytest.approx(np.mean(ours))
    assert agc["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert agc["prob_improve"] == 1.0
    interval = t_interval(np.subtract(ours, theirs))
    assert (agc["diff_low"], agc["diff_high"]) == pytest.approx(interval[1:])
    assert table["accuracy"].isna().all()
    worse = compare_table(frame(metric), baseline="agc")
    assert list(worse["evidence"]) == ["baseline", "worse", "worse"]
    assert worse.iloc[2]["prob_improve"] == 0.0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_diverged_runs_count_with_the_worst_and_trained_is_a_quarter_of_the_way(
    metric: Metric,
) -> None:
    runs = frame(metric, 24, diverging="none")
    own = scores(metric, "agc", 24)
    best = min(own) if metric is MSE else max(own)
    least = trained_from(runs)
    assert least == pytest.approx(metric.worst + (best - metric.worst) / 4)
    none = compare_table(runs).iloc[-1]
    assert (none["strategy"], none["trained"], none["n"]) == ("none", 12, 24)
    own = runs[runs["strategy"] == "none"]
    assert none["score"] == pytest.approx(own["score"].mean())
    assert list(trained(own, least)) == [False, True] * 12
    agc = compare_table(runs).iloc[0]
    assert agc["evidence"] == "trains more often, better when trained"


def test_where_no_run_is_better_than_the_worst_value_none_has_trained() -> None:
    for metric, bad in ((MSE, 0.3), (MSE, MSE.worst), (RETURN, -5.0)):
        runs = frame(metric).assign(score=bad)
        assert not trained(runs, trained_from(runs)).any()


def test_the_rule_in_words() -> None:
    assert rule(0.05, MSE) == (
        "finished with 0.050 or less: a quarter of the way from the worst value to the best run"
    )
    assert rule(120, RETURN).startswith("finished with 120.000 or more: a quarter of the way")
    assert rule(0.301) == (
        "finished with 30.1 % or more: a quarter of the way from chance to the best run, and at "
        "least twice the odds of chance"
    )


def test_a_mean_without_a_range_has_the_t_interval_within_what_there_is_of_one() -> None:
    values = [0.01, 0.02, 0.4]
    wide = t_interval(values)
    assert wide.low < 0
    assert mean_interval(values, bounds=(0, math.inf)) == (wide.value, 0.0, wide.high)
    assert mean_interval(values, bounds=(-math.inf, math.inf)) == wide
    assert mean_interval(values) != wide


def test_the_best_of_k_is_the_least_where_lower_is_better() -> None:
    values = [0.3, 0.1, 0.2, 0.9]
    curve = budget_curve(values, "lower")
    for k in range(1, 5):
        subsets = [min(some) for some in itertools.combinations(values, k)]
        assert expected_best_of_k(values, "lower")[k - 1] == pytest.approx(np.mean(subsets))
        assert curve.low[k - 1] <= curve.mean[k - 1] <= curve.high[k - 1]
    assert (curve.low[0], curve.high[0]) == (0.1, 0.9)
    assert curve.mean[-1] == curve.low[-1] == curve.high[-1] == 0.1
    assert probability_of_improvement([0.1, 0.2], [0.2, 0.3], "lower") == 0.875


@pytest.mark.parametrize("diverging", ["", "none"])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_table_says_its_metric_and_nothing_of_accuracy(metric: Metric, diverging: str) -> None:
    runs = frame(metric, diverging=diverging)
    table = compare_table(runs)
    text = comparison_table(table, "none", "test", metric)
    headings = [column.heading for column in text.columns]
    assert f"test {metric.name}" in headings
    limited = headings.index("limited")
    cells = [cell for row in text.rows for at, cell in enumerate(row) if at != limited]
    below = notes(table, "none", metric=metric)
    assert_says_nothing_of_accuracy([*headings, *cells, *below])
    if metric is MSE:
        assert text.rows[0][1].startswith("0.010 [0.01,0.01]")
        assert "Mean squared error (lower is better): the mean [95 % t interval" in below[-1]
        assert "A diverged run counts as the worst value, 0.167" in below[-1]
        assert text.rows[0][4].startswith("-0.0")
    else:
        assert text.rows[0][4].startswith("+2")
    shown = Comparison(
        outcomes=(RunResult(config=RunConfig()),), table=table, baseline="none",
        store=None,  # type: ignore[arg-type]
        metric=metric,
    )  # fmt: skip
    assert f"<th>test {metric.name}</th>" in shown._repr_html_()
    assert not {"accuracy", "chance"} & set(repr(shown).lower().split())


def test_runs_of_several_metrics_make_no_one_table() -> None:
    both = pd.concat([frame(MSE), frame(RETURN).replace({"none": "soft", "agc": "zclip"})])
    both = both[~((both["strategy"] == "norm") & (both["metric"] == RETURN.name))]
    with pytest.raises(UsageError, match=r"error \(lower .* and mean return .*one experiment"):
        compare_table(both.reset_index(drop=True))


def test_a_missing_score_names_the_metric_and_its_worst_value() -> None:
    runs = frame(MSE)
    runs.loc[0, "score"] = math.nan
    with pytest.raises(UsageError, match=r"the mean squared error of run agc0 .* 0\.167, instead"):
        compare_table(runs)


def test_a_stored_run_of_a_loss_comes_back_with_its_metric(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    curve = [{"epoch": 1, "step": 5, "train_loss": 0.2, "score": 0.05, "loss": 0.05}]
    kept = {MSE.name: 0.02, "largest error": 0.4}
    loss = RunResult(config=RunConfig(seed=1), metric=MSE, scores=kept, curve=curve)
    store.save(loss)
    store.save(RunResult(config=RunConfig(seed=2), accuracy=0.9, chance=0.01))
    store.save(RunResult.failed(RunConfig(seed=3), "out of memory"))
    first, second, failed = load(store).to_dict("records")
    assert (first["score"], first["metric"], first["better"]) == (0.02, MSE.name, "lower")
    assert math.isnan(first["accuracy"])
    assert metric_of(load(store, [loss.config.key])) == MSE
    assert (second["score"], second["accuracy"], second["worst"]) == (0.9, 0.9, 0.01)
    assert math.isnan(failed["score"])
    assert not isinstance(failed["metric"], str)
    assert load_curves(store)["score"].tolist() == [0.05]
    assert metric_of(load(store, [RunConfig(seed=2).key])).worst == 0.01
    with pytest.raises(UsageError, match="choose the runs of one experiment"):
        metric_of(load(store))


def test_runs_stored_before_there_were_metrics_have_accuracy(tmp_path: Path) -> None:
    runs = pd.DataFrame({"strategy": ["none"], "accuracy": [0.9], "status": ["finished"]})
    assert metric_of(runs) == ACCURACY
    assert metric_of(runs.assign(chance=0.01)) == dataclasses.replace(ACCURACY, worst=0.01)
    assert metric_of(runs.iloc[:0]) == ACCURACY


def test_progress_names_a_metric_that_is_no_share_and_survives_json() -> None:
    now = Progress(
        epoch=1, epochs=3, step=5, steps=15, loss=0.3, accuracy=None, status="running",
        metric=MSE, score=0.0312,
    )  # fmt: skip
    assert epoch_text(now) == "epoch 2 of 3 · loss 0.3 · mean squared error 0.031"
    assert Progress.from_dict(json.loads(json.dumps(now.to_dict()))) == now
    accuracy = Progress(
        epoch=1, epochs=3, step=5, steps=15, loss=0.3, accuracy=0.912, status="running"
    )
    assert accuracy.score == 0.912
    assert epoch_text(accuracy) == "epoch 2 of 3 · loss 0.3 · 91.2 %"
