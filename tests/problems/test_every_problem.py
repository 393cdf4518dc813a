"""What holds for every problem that comes with gclip, on small copies of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gclip.problems import chars
from gclip.training import RunConfig, RunResult, train

SMALL: dict[str, dict[str, Any]] = {
    "linear(count=60)": {},
    "adding(hidden=4, length=6, steps=3)": {"batch_size": 4},
    "chars(context=8, hidden=4)": {"batch_size": 32},
    "gan-digits(hidden=8, latent=2)": {"batch_size": 256},
    "cartpole-dqn(capacity=40, hidden=4, steps=12, target_every=5, warmup=20)": {"batch_size": 4},
    "cartpole-reinforce(hidden=4, steps=2)": {"batch_size": 2},
}
OPTIMIZERS = {"sgd": {"lr": 1e-4, "momentum": 0.9}, "adam": {"lr": 1e-3, "momentum": None}}


def config(task: str, optimizer: str = "adam", **changes: Any) -> RunConfig:
    settings = {**SMALL[task], **OPTIMIZERS[optimizer], "epochs": 2, "strategy": "norm", **changes}
    return RunConfig(task=task, optimizer=optimizer, seed=3, **settings)


@pytest.fixture(autouse=True)
def text(tmp_path: Path) -> Path:
    """A short text for the problem of characters."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number, name in enumerate(chars.MODULES):
        (folder / f"{name}.py").write_text(f"def f{number}(x):\n    return {name}\n" * 15)
    return folder


def run(asked: RunConfig, text: Path, **options: Any) -> RunResult:
    data = text if asked.task.startswith("chars") else None
    return train(asked, device="cpu", data=data, **options)


def assert_same_bits(one: RunResult, other: RunResult) -> None:
    def outcome(result: RunResult) -> list[str]:  # as text, since NaN is not NaN
        return [repr({**point, "seconds": 0}) for point in result.curve]

    assert one.status == other.status == "finished", (one.message, other.message)
    assert outcome(one) == outcome(other)
    assert one.steps.keys() == other.steps.keys()
    for name, values in one.steps.items():
        np.testing.assert_array_equal(values, other.steps[name], err_msg=name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("task", SMALL)
def test_a_run_resumes_to_the_same_bits(
    task: str, optimizer: str, text: Path, tmp_path: Path
) -> None:
    asked = config(task, optimizer)
    whole = run(asked, text)
    assert np.isfinite(whole.steps["loss"]).all()
    assert len(whole.curve) == 2

    place = tmp_path / "run.checkpoint"
    half = run(asked, text, checkpoint=place, on_progress=lambda at: at.epoch < 1)
    assert (half.status, len(half.curve)) == ("pruned", 1)
    assert_same_bits(run(asked, text, checkpoint=place), whole)


@pytest.mark.parametrize("task", SMALL)
def test_another_seed_is_another_run(task: str, text: Path) -> None:
    one, other = (run(config(task).replace(seed=seed), text) for seed in (1, 2))
    assert one.steps["loss"].tolist() != other.steps["loss"].tolist()


@pytest.mark.parametrize("task", SMALL)
def test_strategies_see_the_same_start(task: str, text: Path) -> None:
    one, other = (run(config(task, strategy=each, epochs=1), text) for each in ("none", "value"))
    assert one.steps["loss"][0] == other.steps["loss"][0]


@pytest.mark.parametrize("task", SMALL)
def test_validation_measures_on_other_data_than_the_test(task: str, text: Path) -> None:
    test, validation = (
        run(config(task, split=split, epochs=1), text) for split in ("test", "validation")
    )
    assert test.score != validation.score


def test_a_problems_own_momentum_goes_with_its_own_optimizer() -> None:
    asked = RunConfig(task="gan-digits")
    assert (asked.optimizer, asked.lr, asked.momentum) == ("sgd", 0.4, 0.5)
    assert asked.replace(momentum=0.9).momentum == 0.9
    adam = RunConfig(task="gan-digits", optimizer="adam")
    assert (adam.lr, adam.momentum) == (1e-3, None)
    sgd = RunConfig(task="gan-digits", optimizer="sgd")
    assert (sgd.lr, sgd.momentum) == (0.15, 0.9)
