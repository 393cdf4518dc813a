"""A fleet's results are those of the same runs one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import gclip
from gclip.errors import UsageError
from gclip.training import Progress, RunConfig, RunResult, load_dataset, train
from gclip.training.fleet import fleet_key, train_fleet

# A tame setting, where the last bits do not lead elsewhere.
TAME = RunConfig(lr=0.01, epochs=2, fraction=0.1, batch_size=32)
DIGITS = load_dataset("digits")


def fleet(configs: list[RunConfig], **more: Any) -> list[RunResult]:
    return train_fleet(configs, dataset=DIGITS, device="cpu", threads=1, **more)


def alone(config: RunConfig, **more: Any) -> RunResult:
    return train(config, dataset=DIGITS, device="cpu", threads=1, **more)


def assert_same(ours: RunResult, theirs: RunResult) -> None:
    assert ours.config == theirs.config
    assert (ours.status, ours.stopped_at, ours.message) == (
        theirs.status, theirs.stopped_at, theirs.message,
    )  # fmt: skip
    assert ours.accuracy == pytest.approx(theirs.accuracy, abs=0.01)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
    assert [point["step"] for point in ours.curve] == [point["step"] for point in theirs.curve]
    assert [point["epoch"] for point in ours.curve] == [point["epoch"] for point in theirs.curve]
    assert ours.clipping["verdict"] == theirs.clipping["verdict"]
    assert ours.steps.keys() == theirs.steps.keys()
    for name, values in theirs.steps.items():
        np.testing.assert_allclose(ours.steps[name], values, rtol=2e-3, atol=1e-5, err_msg=name)


def names() -> list[str]:
    return [name for name in gclip.names() if gclip.create(name).side != "sample"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_strategy_in_one_fleet(optimizer: str) -> None:
    lr = {"sgd": 0.01, "adam": 1e-3}[optimizer]
    base = TAME.replace(optimizer=optimizer, lr=lr, fraction=0.05, epochs=1)
    # Chance is drawn once for all there; see the next test.
    configs = [base.replace(strategy=name) for name in names() if name != "random"]
    told: list[int] = []
    found = fleet(configs, on_result=lambda place, result: told.append(place))
    assert told == list(range(len(configs)))
    for config, result in zip(configs, found, strict=True):
        assert_same(result, alone(config))
        assert result.environment["fleet"] == len(configs)


def test_own_seeds_rates_schedules_augmentation_and_noise() -> None:
    base = TAME.replace(schedule="onecycle", augment=True, accumulate=2, batch_size=16)
    configs = [
        base.replace(seed=3, strategy="norm"),
        base.replace(seed=4, strategy="norm(max_norm=0.5)", lr=0.02),
        base.replace(seed=3, strategy="agc", label_noise=0.3),
        base.replace(seed=5, strategy="larc", lr=0.03, weight_decay=0.0, gradient_noise=0.1),
        base.replace(seed=3, strategy="norm(max_norm=linear(1, 0.1))", spikes=0.2),
    ]
    for result, config in zip(fleet(configs), configs, strict=True):
        assert_same(result, alone(config))


def test_who_diverges_or_is_stopped_leaves_and_the_others_do_not_notice() -> None:
    configs = [
        TAME.replace(epochs=3, strategy="norm"),
        TAME.replace(epochs=3, lr=500.0),
        TAME.replace(epochs=3, strategy="percentile"),
        TAME.replace(epochs=3, strategy="agc", seed=1),
    ]
    said: list[tuple[int, int, str]] = []

    def listen(place: int, progress: Progress) -> bool:
        said.append((place, progress.epoch, progress.status))
        return not (place == 2 and progress.epoch == 2)

    ended: list[int] = []
    found = fleet(configs, on_progress=listen, on_result=lambda place, _: ended.append(place))
    assert [result.status for result in found] == ["finished", "diverged", "pruned", "finished"]
    assert ended == [1, 2, 0, 3]
    assert [place for place, *_ in said] == [0, 1, 2, 3, 0, 2, 3, 0, 3]
    assert_same(found[0], alone(configs[0]))
    assert_same(found[3], alone(configs[3]))
    assert_same(found[2], alone(configs[2], on_progress=lambda progress: progress.epoch < 2))
    single = alone(configs[1])
    assert (found[1].status, found[1].stopped_at, found[1].message) == (
        single.status, single.stopped_at, single.message,
    )  # fmt: skip
    assert found[1].accuracy == single.accuracy == 0.1
    assert found[1].loss == math.inf
    assert len(found[1].steps["loss"]) == single.stopped_at


@pytest.mark.parametrize(
    "model", ["mlp(width=16)", "plain(depth=4)", "nfnet(width=4)", "vit(dim=8, depth=1, heads=2)"]
)
def test_every_model_that_can(model: str) -> None:
    base = TAME.replace(model=model, fraction=0.05, epochs=1)
    configs = [
        base.replace(strategy="norm"),
        base.replace(strategy="agc", lr=0.02),
        base.replace(seed=1, strategy="norm(max_norm=0.5, scope=layer)"),
    ]
    for shared in (configs[:2], configs):  # of one seed, and of two
        for result, config in zip(fleet(shared), shared, strict=True):
            assert_same(result, alone(config))


def test_what_cannot_be_one_fleet_is_said() -> None:
    with pytest.raises(UsageError, match="at least one run"):
        fleet([])
    with pytest.raises(UsageError, match="share their batch_size, but got 32 and 16"):
        fleet([TAME, TAME.replace(batch_size=16)])
    with pytest.raises(UsageError, match="per_sample clips single examples"):
        fleet([TAME, TAME.replace(strategy="per_sample")])
    assert fleet_key(TAME) == fleet_key(TAME.replace(seed=7, lr=1.0, strategy="agc"))
    assert fleet_key(TAME) != fleet_key(TAME.replace(epochs=7))


def test_gradients_that_must_be_finite() -> None:
    with pytest.raises(FloatingPointError):
        fleet([TAME.replace(nonfinite="raise"), TAME.replace(nonfinite="raise", lr=1e6)])


def test_torchs_default_dtype_changes_nothing() -> None:
    configs = [TAME.replace(epochs=1, lr=lr, strategy="agc") for lr in (0.01, 0.02)]
    want = fleet(configs)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        got = fleet(configs)
    finally:
        torch.set_default_dtype(before)
    for mine, theirs in zip(got, want, strict=True):
        assert mine.loss == theirs.loss
        for name, values in theirs.steps.items():
            np.testing.assert_array_equal(mine.steps[name], values, err_msg=name)


def test_steps_hold_l2_norms_whatever_norm_is_clipped() -> None:
    # Of a limit that never clips, the first step's norm is that of no clipping at all.
    spec = "norm(max_norm=1e300, p={})"
    configs = [TAME.replace(epochs=1, strategy=spec.format(p)) for p in (1, 3)]
    want = alone(TAME.replace(epochs=1, strategy="none")).steps["norm"]
    for result in (*fleet(configs), *map(alone, configs)):
        np.testing.assert_allclose(result.steps["norm"], want, rtol=2e-3)
        np.testing.assert_allclose(result.steps["clipped_norm"], want, rtol=2e-3)
