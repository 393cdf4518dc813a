"""A result survives being stored, infinities and all."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gclip.errors import UsageError
from gclip.training import RunConfig, RunResult


def test_round_trip_through_json():
    result = RunResult(
        config=RunConfig(strategy="agc", seed=2),
        status="diverged",
        stopped_at=7,
        message="the training loss was not finite at step 7",
        accuracy=0.1,
        loss=math.inf,
        train_loss=math.nan,
        curve=[{"epoch": 1, "step": 7, "loss": math.inf, "train_loss": 2.5}],
        clipping={"verdict": "safety net", "norm_quantiles": {"0.5": math.nan}},
        seconds=1.5,
        steps={"loss": np.array([1.0, 2.0], np.float32)},
        environment={"threads": 1},
    )
    values = result.to_dict()
    steps = values.pop("steps")
    again = RunResult.from_dict({**json.loads(json.dumps(values, allow_nan=False)), "steps": steps})
    assert again.config == result.config
    assert (again.status, again.stopped_at, again.message) == ("diverged", 7, result.message)
    assert (again.accuracy, again.loss, again.seconds) == (0.1, math.inf, 1.5)
    assert math.isnan(again.train_loss)
    assert again.curve == result.curve
    assert math.isnan(again.clipping["norm_quantiles"]["0.5"])
    assert again.clipping["verdict"] == "safety net"
    assert np.array_equal(again.steps["loss"], steps["loss"])
    assert again.environment == {"threads": 1}


def test_a_failed_run_has_its_message_and_no_score():
    result = RunResult.failed(RunConfig(), "out of memory")
    assert (result.status, result.message) == ("failed", "out of memory")
    assert math.isnan(result.accuracy)
    again = RunResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert math.isnan(again.accuracy)


@pytest.mark.parametrize("broken", [{}, {"config": 3, "status": "finished"}, {"status": "odd"}])
def test_what_is_no_result_is_refused(broken):
    with pytest.raises(UsageError):
        RunResult.from_dict(broken)
    config = json.loads(RunConfig().to_json())
    with pytest.raises(UsageError, match="unknown status 'odd'"):
        RunResult.from_dict({"config": config, "status": "odd"})
