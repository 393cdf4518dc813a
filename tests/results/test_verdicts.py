"""A row's verdict is on the number beside it, and rows of equal runs are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gclip.clipping.verdicts import verdict_of
from gclip.execution import choose_baseline
from gclip.results import Store
from gclip.results.identical_runs import identical_runs
from gclip.results.table import compare_table


@pytest.mark.parametrize(
    ("limited", "clipped", "verdict"),
    [
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], "never clips"),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.72], "safety net"),  # not what two of the three say
        ([0.0, 0.0, 0.31], [0.0, 0.0, 0.31], "step-size limiter"),
        ([0.99, 0.99, 0.99], [1.0, 1.0, 1.0], "always on"),
    ],
)
def test_a_rows_verdict_is_on_its_own_numbers(
    limited: list[float], clipped: list[float], verdict: str
) -> None:
    runs = pd.DataFrame(
        {
            "key": ["a", "b", "c"],
            "strategy": "norm",
            "seed": [0, 1, 2],
            "status": "finished",
            "accuracy": [0.7, 0.8, 0.9],
            "clip_rate": clipped,
            "limited_rate": limited,
            "steps": 100,
            "skipped": [0, 0, 3],
            "not_finite": 0,
            "verdict": "never clips",
            "seconds": 1.0,
        }
    )
    [row] = compare_table(runs, "norm").to_dict("records")
    assert row["verdict"] == verdict
    assert row["limited_rate"] == pytest.approx(sum(limited) / 3)
    assert row["skipped_rate"] == pytest.approx(0.01)


def test_left_out_steps_go_before_and_unknown_rates_say_nothing() -> None:
    assert verdict_of(clip_rate=1, limited_rate=1, skipped=0.51) == "mostly skipped"
    assert verdict_of(clip_rate=0, limited_rate=0, not_finite=0.51) == "mostly not finite"
    assert verdict_of(clip_rate=float("nan"), limited_rate=0.5) == ""


def test_the_baseline_is_never_ones_own_by_accident() -> None:
    assert choose_baseline(["agc", "norm", "none"], None) == "none"
    assert choose_baseline(["agc", "norm(max_norm=0.5)", "norm"], None) == "norm"
    assert choose_baseline(["agc", "norm(max_norm=0.5)"], None) == "norm(max_norm=0.5)"
    assert choose_baseline(["zclip", "agc"], None) == "zclip"
    assert choose_baseline(["agc", "norm"], "agc") == "agc"


def test_runs_are_the_same_only_if_every_bit_of_their_training_is(tmp_path: Any, make: Any) -> None:
    store = Store(tmp_path / "runs", create=True)
    made = []
    for strategy in ("norm", "zclip", "agc"):
        for seed in (0, 1):
            result = make(strategy, seed)
            if strategy == "agc" and seed == 1:
                loss = result.steps["loss"]
                result.steps["loss"] = np.nextafter(loss, loss + 1)
            store.save(result)
            made.append(result.config.key)
    assert identical_runs(store, made) == (("norm", "zclip"),)
