"""The benchmarks of training and fleets: their rows; the numbers are the machine's."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gclip.bench import fleet, tutorial
from gclip.cli import main
from gclip.training import load_dataset

KEYS = {"case", "peer", "speedup", "ours", "theirs"}


def test_fleet_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fleet, "STEPS", {64: 1})
    command = ["bench", "fleet", "--batch-size", "64", "--runs", "2", "--seconds", "0"]
    assert main([*command, "--no-tutorial", "-s", "norm", "-s", "agc", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bench"] == "fleet"
    assert {"cores", "torch", "processor"} <= set(found["machine"])
    one, machine = found["rows"]
    assert one["case"] == "lenet batch=64 runs=2"
    assert one["peer"].startswith("one after another")
    assert machine["case"].startswith("lenet batch=64 runs=2 workers=")
    for row in found["rows"]:
        assert set(row) == KEYS
        assert row["speedup"] == pytest.approx(row["ours"] / row["theirs"])
        assert row["theirs"] > 0


def test_train_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "bench",
        "train",
        "--model",
        "lenet",
        "--batch-size",
        "512",
        "--seconds",
        "0",
        "--json",
    ]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["case"] for row in found["rows"]] == ["lenet batch=512"] * 2
    assert [row["peer"].split()[0] for row in found["rows"]] == ["minimal", "tutorial"]
    assert all(set(row) == KEYS and row["speedup"] > 0 for row in found["rows"])


def test_the_minimal_loop_shows_every_image_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalised as in the trainer; and each batch moves the weights by a step of Adam."""
    digits, batches, moved = load_dataset("digits"), [], []
    steps = tutorial._steps

    def recorded(net: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        step = steps(net, optimizer)

        def call(inputs: Tensor, labels: Tensor) -> None:
            before = [p.detach().clone() for p in net.parameters()]
            step(inputs, labels)
            batches.append((inputs, labels))
            pairs = zip(net.parameters(), before, strict=True)
            moved.append(max((p.detach() - old).abs().max().item() for p, old in pairs))

        return call

    monkeypatch.setattr(tutorial, "_steps", recorded)
    tutorial.minimal_epoch("lenet", 24, "adam", digits, 64, 1e-3)()
    assert [len(labels) for _, labels in batches] == [24, 24, 16]
    labels = torch.cat([labels for _, labels in batches])
    assert labels.sort().values.equal(digits.train_labels[:64].sort().values)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (digits.mean, digits.std))
    wanted = (digits.train_images[:64].float() / 255 - mean) / std
    shown = torch.cat([images for images, _ in batches])
    sums = [images.flatten(1).sum(dim=1).sort().values for images in (shown, wanted)]
    torch.testing.assert_close(*sums)
    # The first step of Adam moves a weight by the learning rate, whatever its gradient.
    assert moved[0] == pytest.approx(1e-3, rel=1e-3)
    assert all(each > 0 for each in moved)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["fleet", "--batch-size", "0"], "batches are whole numbers of at least 1, but got 0"),
        (["fleet", "--runs", "-1"], "sizes are whole numbers of at least 1, but got -1"),
        (["train", "--batch-size", "0"], "batches are whole numbers of at least 1, but got 0"),
        (["fleet", "--seconds", "-1"], "--seconds must be at least 0, but got -1"),
        (["train", "--model", "lenett"], "did you mean 'lenet'"),
        (["fleet", "--model", "lenett"], "did you mean 'lenet'"),
    ],
)
def test_typed_wrong(more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *more]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
