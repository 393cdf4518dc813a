"""Limits and what they do to the steps: each fault, and the loop without it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import gclip
from tests.doctor.loops import Training, line_of

FAULTS = ("bad-limit", "never", "always", "scale-free", "epsilon", "none", "no-steps")


def faults(found: gclip.Findings) -> set[str]:
    return set(found.codes).intersection(FAULTS)


def test_a_limit_that_sometimes_acts() -> None:
    t = Training()
    sizes = iter([1.0, 1.0, 1.0, 1.0, 50.0] * 2)

    def step() -> None:
        t.optimizer.zero_grad()
        t.loss(next(sizes)).backward()
        clip_grad_norm_(t.params, 5.0)
        t.optimizer.step()

    assert not faults(t.examine(step))


@pytest.mark.parametrize(
    ("clip", "limit", "said"),
    [
        (clip_grad_norm_, 0.0, "become zero"),
        (clip_grad_norm_, -1.0, "uphill"),
        (clip_grad_norm_, math.nan, "NaN"),
        (clip_grad_value_, 0.0, "become zero"),
        (clip_grad_value_, -1.0, "one number"),
        (clip_grad_value_, math.nan, "NaN"),
    ],
)
def test_limits_that_are_none(clip: Callable[..., Any], limit: float, said: str) -> None:
    t = Training()
    found = t.loop(lambda: clip(t.params, limit))
    assert faults(found) == {"bad-limit"}
    assert said in found.of("bad-limit").why
    assert found.of("bad-limit").numbers["calls"] == 10


def test_what_is_said_of_bad_limits_is_so() -> None:
    for limit, effect in ((0.0, 0.0), (-1.0, -0.2)):
        p = torch.nn.Parameter(torch.zeros(1))
        p.grad = torch.tensor([5.0])
        clip_grad_norm_(p, limit)
        assert float(p.grad / 5) == pytest.approx(effect)
    p = torch.nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([5.0, -0.5])
    clip_grad_value_(p, -1.0)
    assert len(set(p.grad.tolist())) == 1
    clip_grad_value_(p, math.nan)
    assert p.grad.isnan().all()


@pytest.mark.parametrize("limit", [100.0, math.inf])
def test_never_reached(limit: float) -> None:
    t = Training()

    def clip() -> None:
        clip_grad_norm_(t.params, limit)

    found = t.loop(clip)
    if limit == math.inf:  # a measurement
        assert faults(found) == {"none"}
        return
    assert faults(found) == {"never"}
    finding = found.of("never")
    assert finding.severity == "note"
    assert not found.wrong
    assert finding.numbers["limit"] == 100
    assert finding.numbers["largest"] == pytest.approx(_norms()[-1], rel=1e-5)
    assert finding.where == line_of(clip, "clip_grad_norm_")


def test_never_reached_by_value() -> None:
    t = Training()
    found = t.loop(lambda: clip_grad_value_(t.params, 100.0))
    assert faults(found) == {"never"}
    assert "the largest element was" in found.of("never").sentence


def test_never_reached_by_a_strategy() -> None:
    t = Training()
    found = t.loop(gclip.Clipper(t.model, "norm(max_norm=100)").step)
    assert faults(found) == {"never"}
    assert found.of("never").numbers["limit"] == 100


@pytest.mark.parametrize("how", ["torch", "gclip", "attach", "hand"])
def test_nearly_always_reached_is_a_learning_rate(how: str) -> None:
    t = Training()
    clips: dict[str, Callable[[], Any]] = {
        "torch": lambda: clip_grad_norm_(t.params, 0.01),
        "gclip": gclip.Clipper(t.model, "norm(max_norm=0.01)").step,
        "attach": lambda: None,
        "hand": lambda: _by_hand(t, 0.01),
    }
    if how == "attach":
        gclip.attach(t.optimizer, "norm(max_norm=0.01)")
    found = t.loop(clips[how])
    assert faults(found) == {"always"}
    finding = found.of("always")
    assert (finding.severity, finding.numbers["share"]) == ("doubtful", 1.0)
    mean = sum(0.01 / norm for norm in _norms(0.01)) / 10
    assert finding.numbers["mean factor"] == pytest.approx(mean, rel=1e-3)
    assert finding.numbers["effective learning rate"] == pytest.approx(0.01 * mean, rel=1e-3)


def _by_hand(t: Training, limit: float) -> None:
    grads = [p.grad for p in t.params if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    for grad in grads:
        grad.mul_(min(1.0, limit / float(norm)))


def _norms(limit: float = math.inf) -> list[float]:
    """The norms that the loop of `Training` meets, the largest last where nothing is clipped."""
    t = Training()
    norms = []
    for _ in range(10):
        t.optimizer.zero_grad()
        t.loss().backward()
        norms.append(float(clip_grad_norm_(t.params, limit)))
        t.optimizer.step()
    return norms if limit < math.inf else sorted(norms)


def adam(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=lr)


class Lion(torch.optim.SGD):
    """Known by its name."""


@pytest.mark.parametrize(
    ("make", "said"),
    [(adam, "AdamW divides"), (Lion, "uses only signs"), (torch.optim.SGD, "")],
)
@pytest.mark.parametrize("limit", [0.01, 1.0])
def test_a_limit_that_the_optimizer_undoes(make: Any, said: str, limit: float) -> None:
    t = Training(make=make, lr=1e-4)
    found = t.loop(lambda: clip_grad_norm_(t.params, limit), size=1.0 if limit < 1 else 0.4)
    if limit == 1:
        assert not {"scale-free", "always"} & faults(found)
    elif said:
        assert faults(found) == {"scale-free"}
        assert said in found.of("scale-free").sentence
    else:
        assert faults(found) == {"always"}


def test_adam_makes_nearly_the_same_steps_at_half_the_limit() -> None:
    """What `scale-free` says, held to a run."""
    ends = []
    for limit in (0.01, 0.005):
        t = Training(make=adam, lr=1e-3)
        t.loop(lambda t=t, limit=limit: clip_grad_norm_(t.params, limit))  # type: ignore[misc]
        ends.append(torch.cat([p.detach().flatten() for p in t.params]))
    start = torch.cat([p.detach().flatten() for p in Training().params])
    assert torch.linalg.vector_norm(ends[0] - ends[1]) < 1e-2 * torch.linalg.vector_norm(
        ends[0] - start
    )


@pytest.mark.parametrize(("limit", "eps"), [(1e-9, 1e-8), (1e-3, 1e-8), (1e-3, 1e-3)])
def test_gradients_as_small_as_epsilon(limit: float, eps: float) -> None:
    t = Training(make=lambda params, lr: torch.optim.Adam(params, lr=lr, eps=eps))
    found = t.loop(lambda: clip_grad_norm_(t.params, limit))
    size = limit / math.sqrt(sum(p.numel() for p in t.params))
    if size > 10 * eps:
        assert "epsilon" not in found.codes
        return
    assert found.wrong
    assert found.of("epsilon").numbers["size of an element"] == pytest.approx(size, rel=1e-3)
    assert found.of("epsilon").numbers["share of a step"] == pytest.approx(
        size / (size + eps), rel=1e-3
    )


def test_no_clipping_is_a_note_with_the_norms() -> None:
    t = Training()

    def step() -> None:
        t.optimizer.zero_grad()
        t.loss().backward()
        t.optimizer.step()

    found = t.examine(step)
    assert faults(found) == {"none"}
    norms = _norms()
    finding = found.of("none")
    assert finding.severity == "note"
    assert finding.numbers["largest norm"] == pytest.approx(norms[-1], rel=1e-5)
    assert finding.numbers["norm, 50 %"] == pytest.approx((norms[4] + norms[5]) / 2, rel=1e-5)
    assert finding.where == line_of(step, "optimizer.step()")
    assert "hooks" not in finding.why


def test_hooks_that_may_clip_are_named() -> None:
    t = Training()
    t.params[0].register_hook(lambda grad: grad.clamp(-0.1, 0.1))
    found = t.loop(lambda: None)
    assert "1 parameter of it have hooks" in found.of("none").why


def test_no_step() -> None:
    t = Training()
    found = t.examine(lambda: t.loss().backward())
    assert faults(found) == {"no-steps"}
    assert found.wrong
    assert str(found).startswith("no steps watched: 1 wrong")
