"""Gradients that are inf or NaN, and optimizers that step within the backward pass."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

import gclip
from tests.doctor.loops import Training, line_of


def broken(t: Training, value: float, clip: Any) -> gclip.Findings:
    """A loop whose last gradient is not finite in the third step."""
    counts = iter(range(100))

    def step() -> None:
        t.optimizer.zero_grad()
        t.loss().backward()
        if next(counts) == 2:
            grad = t.params[-1].grad
            assert grad is not None
            grad.fill_(value)
        clip()
        t.optimizer.step()

    return t.examine(step)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_norm_that_spreads(value: float) -> None:
    t = Training()

    def clip() -> None:
        clip_grad_norm_(t.params, 1.0)

    found = broken(t, value, clip)
    assert {"nonfinite-stepped", "nan-from-norm"} <= set(found.codes)
    finding = found.of("nan-from-norm")
    assert finding.where == line_of(clip, "clip_grad_norm_")
    assert finding.numbers["not finite before"] == 1
    assert ("becomes NaN" if math.isnan(value) else "becomes zero") in finding.why


def test_error_if_nonfinite_raises_and_leaves_nothing_behind() -> None:
    t = Training()
    with pytest.raises(RuntimeError, match="non-finite"):
        broken(t, math.nan, lambda: clip_grad_norm_(t.params, 1.0, error_if_nonfinite=True))
    assert "none" in t.loop(lambda: None).codes  # another doctor may watch


def test_steps_left_out_are_fine() -> None:
    t = Training()
    with gclip.attach(t.optimizer, "norm(max_norm=1)"):
        found = broken(t, math.nan, lambda: None)
    assert not {"nonfinite-stepped", "nan-from-norm"} & set(found.codes)
    assert found.setting == "9 steps of SGD watched"


@pytest.mark.parametrize("fused", [False, True])
def test_steps_left_out_by_a_scaler_are_fine(fused: bool) -> None:
    t = Training(make=lambda params, lr: torch.optim.Adam(params, lr=lr, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)

    def step() -> None:
        t.optimizer.zero_grad()
        scaler.scale(t.loss(100.0)).backward()
        scaler.step(t.optimizer)
        scaler.update()

    found = t.examine(step)
    assert not found.wrong
    assert found.codes == ("none",)
    assert int(found.of("none").numbers["steps"]) < 10
    # unscaled, though the fused step divides them itself
    assert float(found.of("none").numbers["largest norm"]) < 1e4


def test_finite_ones_have_no_finding() -> None:
    t = Training()
    found = t.loop(lambda: clip_grad_norm_(t.params, 1.0))
    assert not {"nonfinite-stepped", "nan-from-norm", "in-backward"} & set(found.codes)


@pytest.mark.parametrize("late", [True, False])
def test_an_optimizer_within_the_backward_pass(late: bool) -> None:
    t = Training()
    each = {p: torch.optim.SGD([p], lr=0.01) for p in t.params}

    def use(p: torch.Tensor) -> None:
        each[p].step()  # type: ignore[index]
        each[p].zero_grad()  # type: ignore[index]

    for p in t.params:
        p.register_post_accumulate_grad_hook(use)

    def step() -> None:
        t.loss().backward()
        if late:
            clip_grad_norm_(t.params, 1.0)

    found = t.examine(step, optimizer=list(each.values()))
    assert [c for c in found.codes if c != "never"] == ["in-backward"]
    finding = found.of("in-backward")
    assert finding.severity == ("wrong" if late else "note")
    assert finding.numbers == {"steps": 40, "optimizers": 4, "clips too late": 10 if late else 0}
    assert found.setting == "40 steps of 4 optimizers watched" or len(each) < 6


def test_clipping_in_the_hook_is_no_fault() -> None:
    t = Training()
    each = {p: torch.optim.SGD([p], lr=0.01) for p in t.params}

    def use(p: torch.Tensor) -> None:
        clip_grad_norm_(p, 1.0)
        each[p].step()  # type: ignore[index]
        each[p].zero_grad()  # type: ignore[index]

    for p in t.params:
        p.register_post_accumulate_grad_hook(use)
    found = t.examine(lambda: t.loss().backward(), optimizer=list(each.values()))
    assert not found.wrong
    assert "in-backward" in found.codes
