"""Dropout in a run: the same for all strategies, resumable, and never in a fleet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gclip.errors import UsageError
from gclip.execution.fleet_plan import why_alone
from gclip.training import RunConfig, load_dataset, train
from gclip.training.fleet import train_fleet
from gclip.training.graphs import recorder
from gclip.training.models.layers import draws_chance

DIGITS = load_dataset("digits")
DROPPED = RunConfig(model="mlp(width=16)", dropout=0.4, lr=0.02, fraction=0.1, epochs=2)


def test_strategies_with_the_same_seed_drop_the_same() -> None:
    plain, clipped, other = (
        train(config, dataset=DIGITS, device="cpu")
        for config in (
            DROPPED,
            DROPPED.replace(strategy="norm(max_norm=1e9)"),
            DROPPED.replace(dropout=0.0),
        )
    )
    np.testing.assert_array_equal(plain.steps["norm"], clipped.steps["norm"])
    assert plain.loss == clipped.loss
    assert plain.steps["norm"][0] != other.steps["norm"][0]


@pytest.mark.parametrize("model", ["mlp(width=16)", "lstm(hidden=8, layers=2)"])
def test_a_resumed_run_goes_on_with_the_same_chance(model: str, tmp_path: Path) -> None:
    config = DROPPED.replace(model=model)
    whole = train(config, dataset=DIGITS, device="cpu")
    path = tmp_path / "run.ckpt"
    train(config, dataset=DIGITS, device="cpu", checkpoint=path, on_progress=lambda p: p.epoch < 1)
    resumed = train(config, dataset=DIGITS, device="cpu", checkpoint=path)
    assert resumed.loss == whole.loss
    np.testing.assert_array_equal(resumed.steps["norm"], whole.steps["norm"])


def test_it_trains_one_run_after_another() -> None:
    said = r"the model mlp\(width=16\) has dropout, and what a run drops is drawn anew"
    with pytest.raises(UsageError, match=said):
        train_fleet([DROPPED, DROPPED.replace(seed=1)], dataset=DIGITS, device="cpu")
    assert "has dropout" in why_alone(DROPPED)
    assert why_alone(DROPPED.replace(dropout=0.0)) == ""
    assert "recurrent layer" in why_alone(RunConfig(model="lstm"))


@pytest.mark.parametrize(
    ("layer", "draws"),
    [
        (nn.Dropout(0.1), True),
        (nn.Dropout(0.0), False),
        (nn.Dropout2d(0.5), True),
        (nn.LSTM(2, 2, 2, dropout=0.1), True),
        (nn.LSTM(2, 2), False),
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (nn.Linear(1, 1), False),
    ],
)
def test_who_draws(layer: nn.Module, draws: bool) -> None:
    assert draws_chance(nn.Sequential(layer)) == draws


def test_a_pass_that_draws_is_not_recorded() -> None:
    device = torch.device("cuda")
    assert recorder(device, 1000, whole=True, chance=True)[1].startswith("none: dropout")
    assert recorder(device, 1000, whole=True, chance=False)[1] == ""
