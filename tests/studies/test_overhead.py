"""The study of costs: the arithmetic by hand, and a measurement too short to be believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gclip import figures
from gclip.studies import overhead
from gclip.studies.overhead import Bench, Measured, row
from gclip.training import RunConfig
from tests.studies.synthetic import asked

SMALL = RunConfig(batch_size=4)


def test_the_row_by_hand() -> None:
    found = row(
        Measured(
            strategy="update_rms", side="update", call=5e-4, bare=2e-4, norm=1e-4, step=27e-4,
            clipped=0.25, memory=1234, before=1000, size=248024, rounds=20,
        )
    )  # fmt: skip
    assert found["call_us"] == pytest.approx(300)
    assert found["ratio"] == pytest.approx(3.0)
    assert found["share"] == pytest.approx(0.1)
    assert (found["ratio_text"], found["share_text"]) == ("3.00", "10.0 %")
    assert (found["memory_text"], found["memory_grows"]) == ("1.2 kB +", True)


def test_every_side_is_measured_and_the_weights_come_back(tmp_path: Path) -> None:
    request = asked(tmp_path, "norm", "percentile", "update_rms", "per_sample", base=SMALL)
    answer = overhead.run(request, seconds=0.0, warm=1)
    rows = {each["strategy"]: each for each in answer.rows}
    assert set(rows) == {"none", "norm", "percentile", "update_rms", "per_sample"}
    assert [rows[text]["side"] for text in ("norm", "update_rms", "per_sample")] == [
        *("gradient", "update", "sample"),
    ]
    assert all(each["call_us"] >= 0 and each["step_us"] > 0 for each in answer.rows)
    assert rows["norm"]["memory_bytes"] == 0
    assert rows["percentile"]["memory_bytes"] > 0
    assert set(answer.columns.values()) <= set(answer.rows[0])
    json.dumps([answer.rows, answer.more], allow_nan=False)
    assert list(tmp_path.glob("*/config.json")) == []
    [draw] = answer.figures.values()
    assert "What clipping costs" in figures.save(draw(), tmp_path / "f.svg").read_text()


def test_a_reset_brings_back_weights_and_gradients() -> None:
    bench = Bench(SMALL, torch.device("cpu"))
    bench.reset(1.0)
    before = [(p.detach().clone(), p.grad.clone()) for p in bench.parameters if p.grad is not None]
    bench.train()
    bench.reset(2.0)
    for parameter, (weight, gradient) in zip(bench.parameters, before, strict=True):
        assert torch.equal(parameter, weight)
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, 2 * gradient)
