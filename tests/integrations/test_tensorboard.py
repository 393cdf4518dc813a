"""TensorBoard's files: of a loop of the user's own, and of ``gclip train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gclip
from gclip.cli import main
from gclip.results import Store, tensorboard
from tests.integrations.frameworks import module

pytestmark = pytest.mark.filterwarnings("ignore")
accumulators = module("tensorboard.backend.event_processing.event_accumulator")

TINY = ("--fraction", "0.2", "--epochs", "2", "--batch-size", "64", "--device", "cpu")


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of each tag."""
    found: Any = accumulators.EventAccumulator(str(folder), {"scalars": 0})
    found.Reload()
    tags = found.Tags()["scalars"]
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in tags}


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = gclip.attach(optimizer, "zclip(warmup=2)", model=model)
    with SummaryWriter(str(tmp_path)) as writer:
        log = handle.log_to(writer, every=4)
        for _ in range(10):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
        log.flush()
    norms = handle.record.arrays()["norm"]
    assert read(tmp_path)["clip/norm"] == [(4, norms[3]), (8, norms[7])]


def test_a_run_of_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second time it is read, and written anew
        assert main(["train", "-s", "zclip", *TINY, "--tensorboard", "boards"]) == 0
    assert "tensorboard --logdir boards" in " ".join(capsys.readouterr().out.split())
    [key] = Store("runs").keys()
    result = Store("runs").load(key)
    [folder] = Path("boards").iterdir()
    assert folder.name.startswith("digits-zclip-seed0-")
    found = read(folder)
    for column, tag in (
        ("norm", "clip/norm"),
        ("clipped", "clip/clip_rate"),
        ("loss", "train/loss"),
    ):
        values = [value for _, value in found[tag]]
        np.testing.assert_array_equal(values, result.steps[column])
    assert found["clip/norm"][0][0] == 1
    curve = [(row["step"], np.float32(row["accuracy"])) for row in result.curve]
    assert found["test/accuracy"] == curve
    assert {"clip/limit", "clip/clipped_norm", "clip/skipped", "test/loss", "train/lr"} <= set(
        found
    )


def test_long_runs_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "MOST_POINTS", 3)
    values = np.array([1.0, 2.0, 3.0, 4.0, np.nan, 6.0, 7.0], dtype=np.float32)
    last = list(tensorboard._series("t", values, mean=False))
    assert last == [("t", 3, 3.0), ("t", 6, 6.0), ("t", 7, 7.0)]
    mean = list(tensorboard._series("t", values, mean=True))
    assert mean == [("t", 3, 2.0), ("t", 7, 7.0)]
