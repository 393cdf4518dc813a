"""What is read from a store is what was written to it, diverged runs and all."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gclip.results import Results, Store, StoreWarning, load, load_curves, load_steps
from gclip.results.frames import CURVE_COLUMNS, RUN_COLUMNS, STEP_COLUMNS
from gclip.training.config import RunConfig
from gclip.training.result import RunResult

Make = Callable[..., Any]


def test_one_row_a_run_with_everything_known_about_it(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    chance = {"accuracy": 0.1, "loss": "inf", "train_loss": "nan", "stopped_at": 3}
    store.save(make("norm", 1, status="diverged", **chance))
    store.save(make("norm", 0, config={"optimizer_settings": {"eps": 1e-7}}))
    store.save(make("agc", 0, status="failed", message="out of memory", clipping={}))
    frame = load(store)
    assert set(RUN_COLUMNS) <= set(frame.columns)
    assert list(zip(frame["strategy"], frame["seed"], strict=True)) == [
        *[("agc", 0), ("norm", 0), ("norm", 1)]
    ]
    failed, finished, diverged = frame.to_dict("records")
    assert (diverged["status"], diverged["accuracy"], diverged["stopped_at"]) == (
        "diverged",
        0.1,
        3,
    )
    assert diverged["loss"] == math.inf
    assert math.isnan(diverged["train_loss"])
    assert finished["optimizer_settings"] == '{"eps": 1e-07}'
    assert (finished["norm_q05"], finished["norm_q95"]) == (0.1, 4.0)
    assert (finished["verdict"], finished["device"]) == ("step-size limiter", "cpu")
    assert failed["message"] == "out of memory"
    assert math.isnan(failed["clip_rate"])
    assert all(frame[name].dtype == float for name in ("accuracy", "loss", "skipped", "norm_q50"))


def test_every_field_of_a_config_is_a_column_and_a_run_comes_back(tmp_path: Path) -> None:
    config = RunConfig(strategy="norm", seed=3, optimizer_settings={"nesterov": True})
    result = RunResult(
        config=config,
        status="diverged",
        stopped_at=2,
        accuracy=0.1,
        loss=math.inf,
        curve=[{"epoch": 1, "step": 2, "train_loss": math.nan, "accuracy": 0.1, "loss": math.inf}],
        clipping={"clip_rate": 0.5, "norm_quantiles": {"0.5": math.nan}, "verdict": "safety net"},
        steps={"norm": np.array([1.0, np.inf], np.float32)},
        environment={"device": "cpu"},
    )
    store = Store(tmp_path, create=True)
    store.save(result)
    back = store.load(config.key)
    assert back.config == config
    assert back.to_dict().keys() == result.to_dict().keys()
    for name, value in result.to_dict().items():
        if name != "steps":
            assert back.to_dict()[name] == value, name
    np.testing.assert_array_equal(back.steps["norm"], result.steps["norm"])
    frame = load(store)
    assert set(RunConfig.__dataclass_fields__) <= set(frame.columns)
    assert frame.loc[0, "loss"] == math.inf
    assert load_curves(store).loc[0, "loss"] == math.inf


def test_an_empty_store_is_empty_frames(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    assert list(load(store).columns) == list(RUN_COLUMNS)
    assert list(load_curves(store).columns) == list(CURVE_COLUMNS)
    assert list(load_steps(store).columns) == list(STEP_COLUMNS)
    assert Results.read(store).strategies == ()


def test_keys_choose_and_what_is_not_there_is_left_out(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    results = [make("norm", seed) for seed in range(3)]
    for result in results:
        store.save(result)
    wanted = [results[2].config.key, results[0].config.key, "f" * 64]
    assert list(load(tmp_path, wanted)["seed"]) == [0, 2]
    assert list(load_curves(tmp_path, wanted)["seed"]) == [0, 0, 2, 2]


def test_a_damaged_run_is_told_and_left_out(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    store.save(make("norm", 0))
    (store.save(make("norm", 1)) / "config.json").write_text("{}")
    with pytest.warns(StoreWarning, match="damaged"):
        assert list(load(store)["seed"]) == [0]


def test_curves_are_one_row_an_epoch(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    store.save(make("norm", 4))
    curves = load_curves(store)
    assert list(curves["epoch"]) == [1, 2]
    assert list(curves["accuracy"]) == [0.5, 0.9]
    assert set(curves["strategy"]) == {"norm"}


def test_steps_in_full(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    result = make("norm", length=7)
    store.save(result)
    steps = load_steps(store)
    assert list(steps["step"]) == list(range(7))
    np.testing.assert_allclose(steps["norm"], result.steps["norm"])
    np.testing.assert_allclose(steps["any_clipped"], result.steps["clipped"] > 0)


def test_steps_in_blocks_that_line_up_across_runs(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    norm = np.array([1, 3, 2, np.inf, 8, 4, np.nan, np.nan, np.nan, 5], np.float32)
    clipped = np.array([0, 0.5, 0.25, 0, 0, 0, 0, 0, 1, 1], np.float32)
    store.save(make("norm", 0, steps={"norm": norm, "clipped": clipped}))
    store.save(make("norm", 1, steps={"norm": norm[:4], "clipped": clipped[:4]}))
    steps = load_steps(store, points=4)  # 10 steps, so blocks of 3
    first, second = (steps[steps["seed"] == seed] for seed in (0, 1))
    assert list(first["step"]) == [0, 3, 6, 9]
    assert list(second["step"]) == [0, 3]
    np.testing.assert_array_equal(first["norm"], [2, 6, np.nan, 5])
    np.testing.assert_array_equal(second["norm"], [2, np.nan])
    np.testing.assert_allclose(first["clipped"], [0.25, 0, 1 / 3, 1])
    np.testing.assert_allclose(first["any_clipped"], [2 / 3, 0, 1 / 3, 1])
    assert first["limit"].isna().all()


def test_scored_runs_are_those_with_an_outcome(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    for seed, status in enumerate(("finished", "diverged", "pruned", "failed")):
        store.save(make("norm", seed, status=status))
    store.save(make("none", 0))
    results = Results.read(store)
    assert len(results.runs) == 5
    assert results.strategies == ("none", "norm")
    parts = dict(vars(results.scored()))
    for nothing in ("layers", "trials", "table"):  # nobody watched any, and it is no study
        assert parts.pop(nothing).empty
    assert parts.pop("study") == ""
    for frame in parts.values():
        assert isinstance(frame, pd.DataFrame)
        assert set(frame["key"]) == set(results.runs["key"][results.runs["seed"] < 2])
