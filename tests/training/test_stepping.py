"""Skipped steps are left out, and strategies see the learning rate of the step that they clip."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gclip
from gclip.errors import UsageError
from gclip.results import Store
from gclip.training import RunConfig, optimizers, stepping, train
from gclip.training.fleet import train_fleet
from gclip.training.fleet.run import FleetRun
from gclip.training.run import Run
from gclip.training.stepping import VERSION, Stepper

CPU = torch.device("cpu")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad")
# Ten steps, of which some have gradients a thousand times too large.
SPIKED = RunConfig(
    fraction=0.2, epochs=1, lr=0.01, weight_decay=0.1, spikes=0.3, strategy="ratio_skip(ratio=5)"
)
SKIPPING = {
    "by rule": (SPIKED, 1000.0),
    "not finite": (SPIKED.replace(strategy="norm"), math.inf),
    "not finite, clamped": (SPIKED.replace(strategy="value(clip_value=0.01)"), math.inf),
    "accumulated": (SPIKED.replace(accumulate=3, batch_size=8), 1000.0),
    "bf16": (SPIKED.replace(precision="bf16", schedule="cosine"), 1000.0),
    "single examples": (SPIKED.replace(strategy="per_sample"), math.inf),
    # The rate rises and falls, so that the first updates are small whatever the optimizer.
    "update, by rule": (SPIKED.replace(strategy="norm(side=update)", schedule="onecycle"), 1000.0),
    "update, not finite": (SPIKED.replace(strategy="norm(side=update)"), math.inf),
}


def held(run: Run) -> tuple[list[Tensor], dict[Any, Any]]:
    weights = [p.detach().clone() for p in run.model.parameters()]
    return weights, copy.deepcopy(run.optimizer.state_dict()["state"])


def same_state(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[k], other[k]) for k in one)
    return bool(one == other)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", SKIPPING)
def test_a_skipped_step_changes_nothing(case, optimizer, digits, monkeypatch):
    config, spike = SKIPPING[case]
    monkeypatch.setattr("gclip.training.disturbances.SPIKE", spike)
    config = config.replace(optimizer=optimizer, lr=config.lr)
    if case == "update, by rule":  # beyond the middle of what the updates are if none is skipped
        free = config.replace(strategy="norm(max_norm=1e30, side=update)")
        middle = np.median(train(free, dataset=digits, device="cpu").steps["norm"])
        config = config.replace(strategy=f"norm(max_norm={middle:.4g}, rule=skip, side=update)")
    run = Run(config, digits, CPU)
    before, moved, skipped = held(run), [], []

    def look():
        nonlocal before
        now = held(run)
        unchanged = same_state(now[1], before[1]) and all(map(torch.equal, now[0], before[0]))
        skipped.append(bool(run.clipper.report.skipped))
        moved.append(not unchanged)
        before = now
        return True

    run.train_epoch(look)
    assert moved == [not each for each in skipped]
    assert 0 < sum(skipped) < len(skipped)
    counts = {float(s["step"]) for s in run.optimizer.state.values() if "step" in s}
    assert counts in (set(), {len(skipped) - sum(skipped)})


def test_the_schedule_goes_on_over_skipped_steps(digits):
    config = SPIKED.replace(schedule="cosine")
    run = Run(config, digits, CPU)
    used = []
    run.before_step = lambda: used.append(run.optimizer.param_groups[0]["lr"])
    run.train_epoch(lambda: True)
    assert used == optimizers.learning_rates("cosine", config.lr, run.steps)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("spike", [1000.0, math.inf])
def test_a_resumed_run_that_skips_ends_in_the_same_bits(
    optimizer, spike, digits, tmp_path, monkeypatch
):
    monkeypatch.setattr("gclip.training.disturbances.SPIKE", spike)
    config = SPIKED.replace(optimizer=optimizer, lr=0.01, epochs=2)
    whole = train(config, dataset=digits)
    path = tmp_path / "run.ckpt"
    train(config, dataset=digits, checkpoint=path, on_progress=lambda p: p.epoch < 1)
    resumed = train(config, dataset=digits, checkpoint=path)
    assert whole.loss == resumed.loss
    for name, values in whole.steps.items():
        np.testing.assert_array_equal(values, resumed.steps[name], err_msg=name)


# -- on a GPU, where nobody may look ---------------------------------------------------------------


@pytest.mark.parametrize("way", ["found_inf", "mask"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_steps_are_left_out_without_a_look(optimizer, way, monkeypatch):
    """What a GPU does, on a CPU, whose fused optimizers know ``found_inf`` as well."""
    monkeypatch.setattr(stepping, "on_host", lambda _: False)
    monkeypatch.setattr("gclip.clipping.step_snapshot.on_host", lambda _: False)
    chance = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(3, 2, generator=chance)) for _ in range(2)]
    twins = [nn.Parameter(w.detach().clone()) for w in weights]
    first, second = (
        optimizers.build(optimizer, each, lr=0.1, momentum=0.9 if optimizer == "sgd" else None)
        for each in (weights, twins)
    )
    stepper = Stepper(first)
    stepper._fused = way == "found_inf"
    # The first of all is skipped, too: then there is no momentum yet.
    for out in (True, False, True, False, False, True):
        for weight, twin in zip(weights, twins, strict=True):
            weight.grad = torch.randn(3, 2, generator=chance)
            twin.grad = weight.grad.clone()
        stepper.step(torch.tensor([out]))
        if not out:
            second.step()
        assert all(map(torch.equal, weights, twins))
        assert same_state(first.state_dict()["state"], second.state_dict()["state"])
    assert not hasattr(first, "found_inf")


# -- fleets ----------------------------------------------------------------------------------------


EQUAL, MIXED = (0.01,) * 5, (0.01, 0.02, 0.005, 0.01, 0.01)
"""Learning rates of the runs of a fleet."""


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("spike", "rates"),
    [
        (1000.0, EQUAL),
        (math.inf, MIXED),
        pytest.param(1000.0, MIXED, marks=pytest.mark.drill),
        pytest.param(math.inf, EQUAL, marks=pytest.mark.drill),
    ],
)
def test_a_run_that_skips_is_the_same_in_a_fleet(optimizer, spike, rates, digits, monkeypatch):
    monkeypatch.setattr("gclip.training.disturbances.SPIKE", spike)
    factor = 1.0 if optimizer in ("sgd", "adagrad") else 0.1
    base = SPIKED.replace(optimizer=optimizer, lr=0.01, schedule="cosine")
    configs = [
        base.replace(strategy=strategy, seed=seed, lr=factor * lr, spikes=0.0 if quiet else 0.3)
        for lr, (strategy, seed, quiet) in zip(
            rates,
            [
                ("ratio_skip(ratio=5)", 0, False),
                ("norm", 1, False),
                ("norm(max_norm=0.1, rule=skip, side=update)", 0, False),
                ("norm(max_norm=0.5)", 2, True),
                ("chain(ratio_skip(ratio=5), norm(side=update))", 3, False),
            ],
            strict=True,
        )
    ]
    found = train_fleet(configs, dataset=digits, device="cpu", threads=1)
    for ours, config in zip(found, configs, strict=True):
        alone = train(config, dataset=digits, device="cpu", threads=1)
        assert (ours.status, ours.stopped_at) == (alone.status, alone.stopped_at)
        for name, values in alone.steps.items():
            np.testing.assert_allclose(ours.steps[name], values, rtol=2e-3, atol=1e-5, err_msg=name)
        assert ours.loss == pytest.approx(alone.loss, rel=1e-3)


def test_a_run_that_mostly_skips_says_so(digits):
    config = SPIKED.replace(strategy="norm(max_norm=0.1, rule=skip)", spikes=0.0)
    quiet = config.replace(strategy="norm")
    results = train_fleet([config, quiet], dataset=digits, device="cpu", threads=1)
    for result in (results[0], train(config, dataset=digits)):
        steps = len(result.steps["loss"])
        assert (result.status, result.clipping["verdict"]) == ("finished", "mostly skipped")
        assert result.message.startswith(f"{steps} of {steps} steps were skipped")
        assert result.steps["skipped"].sum() == steps
    assert results[1].message == train(quiet, dataset=digits).message == ""


# -- learning rates --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["gradient", "sample", "update"])
@pytest.mark.parametrize("schedule", optimizers.schedules())
def test_a_strategy_sees_the_rate_of_its_own_step(schedule, side, digits):
    seen: list[float] = []

    @gclip.register("watching")
    @dataclass(frozen=True, kw_only=True)
    class Watching(gclip.Strategy):
        """Looks at the learning rate.

        Nobody (2031), arXiv:3101.00001.
        """

        sides = ("gradient", "sample", "update")

        def limit(self, now, memory):
            seen.append(float(torch.as_tensor(now.lr).flatten()[0]))
            return torch.full_like(now.norm, math.inf)

    config = RunConfig(
        fraction=0.1, epochs=1, lr=0.05, schedule=schedule, strategy=f"watching(side={side})"
    )
    run = Run(config, digits, CPU)
    rates = optimizers.learning_rates(schedule, 0.05, run.steps)
    run.train_epoch(lambda: True)
    assert seen == pytest.approx(rates)
    if side == "sample":
        return
    seen.clear()
    fleet = FleetRun([config, config.replace(seed=1)], digits, CPU)
    seen.clear()
    fleet.train_epoch()
    assert seen == pytest.approx(rates)


# -- what is made again ----------------------------------------------------------------------------

CODE = {"code": "0123456789ab"}


@pytest.mark.parametrize(
    ("settings", "version"),
    [
        ({}, 0),
        ({"strategy": "norm", "schedule": "cosine"}, 0),
        ({"strategy": "larc"}, 0),
        ({"strategy": "larc", "schedule": "onecycle"}, VERSION),
        ({"strategy": "chain(larc, norm)", "schedule": "cosine"}, VERSION),
        ({"strategy": "update_rms", "schedule": "cosine"}, 0),  # after the optimizer's step
        ({"strategy": "sigma_skip"}, VERSION),
        ({"strategy": "norm(rule=skip)"}, VERSION),
        ({"strategy": "sigma_skip(rule=scale)"}, 0),
    ],
)
def test_only_runs_whose_values_changed_have_another_identity(settings, version):
    config = RunConfig(**settings)
    assert config.stepping == version
    assert ("stepping" in config.to_json()) == bool(version)
    before = RunConfig.from_json(config.to_json().replace(f'"stepping":{VERSION},', ""))
    assert before.stepping == 0
    assert (before.key != config.key) == bool(version)
    assert before.replace(stepping=None) == config
    assert RunConfig.from_json(config.to_json()) == config


def test_configs_of_before_are_read_and_not_trained(digits):
    config = RunConfig(strategy="sigma_skip", fraction=0.1, epochs=1)
    before = RunConfig.from_json(config.to_json().replace(f'"stepping":{VERSION},', ""))
    for each in (before, before.replace(seed=3)):
        with pytest.raises(UsageError, match=r"made before .* config\.replace\(stepping=None\)"):
            train(each, dataset=digits, device="cpu")
    assert before.replace(strategy="ratio_skip").stepping == VERSION
    assert before.replace(strategy="norm").stepping == 0
    assert RunConfig(strategy="larc").replace(schedule="cosine").stepping == VERSION
    with pytest.raises(UsageError, match=rf"stepping must be {VERSION}, or 0 .* but got 1"):
        RunConfig(stepping=1)
    # What a plugin's strategy does is not known where it is not loaded.
    assert RunConfig(strategy="elsewhere(x=1)", **CODE).stepping == 0
    assert RunConfig(strategy="elsewhere(x=1)", stepping=VERSION, **CODE).stepping == VERSION


def test_stored_runs_whose_gradients_were_not_finite_are_made_again(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("gclip.training.disturbances.SPIKE", math.inf)
    store = Store(tmp_path, create=True)
    config = SPIKED.replace(strategy="norm")
    result = train(config, dataset=digits, device="cpu")
    calm = train(config.replace(spikes=0.0), dataset=digits, device="cpu")
    keep = train(config.replace(nonfinite="keep", spikes=0.0), dataset=digits, device="cpu")
    for each in (result, calm, keep):
        each.environment.pop("stepping")  # as results were before
        store.save(each)
        assert store.status(each.config.key) == "finished"
        assert store.load(each.config.key).accuracy == each.accuracy
    assert not store.has(result.config.key)
    assert store.has(calm.config.key)
    assert store.has(keep.config.key)
    again = train(config, dataset=digits, device="cpu")
    store.save(again)  # takes the place of the one before
    assert store.has(config.key)
    assert store.load(config.key).environment["stepping"] == VERSION
