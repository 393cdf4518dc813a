"""Transforms at work: each tensor is written as it is computed, where nothing speaks against it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gclip
from gclip.clipping.bound_transform import any_changed
from gclip.core.seen import Elements


@dataclass(frozen=True, kw_only=True)
class Halved(gclip.Transform):
    """Half of each element that is beyond 1."""

    def transform(self, seen: Any, memory: Any) -> tuple[Tensor, Any]:
        values = seen.values
        return torch.where(values.abs() > 1, values / 2, values), {}


def two(*grads: Tensor) -> list[nn.Parameter]:
    params = [nn.Parameter(torch.zeros_like(grad)) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    return params


def test_shared_memory_is_separated_before_it_is_written() -> None:
    grad = torch.tensor([4.0, 0.5])
    one, other = two(grad, grad)
    report = gclip.Clipper([one, other], Halved()).step()
    assert one.grad.tolist() == other.grad.tolist() == [2.0, 0.5]  # and not 1
    assert report.clipped.tolist() == [True, True]


def test_what_did_not_change_is_not_written() -> None:
    one, other = two(torch.tensor([4.0, 0.5]), torch.tensor([0.5, -0.5]))
    version = other.grad._version
    report = gclip.Clipper([one, other], Halved()).step()
    assert report.clipped.tolist() == [True, False]
    assert other.grad._version == version
    torch.testing.assert_close(report.clipped_norm, torch.tensor([math.hypot(2, 0.5), 0.5**0.5]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_refused_keeps_its_gradients(bad: float) -> None:
    one, other = two(torch.tensor([4.0, 0.5]), torch.tensor([bad, 4.0]))
    with pytest.raises(FloatingPointError):
        gclip.Clipper([one, other], Halved(), nonfinite="raise").step()
    assert one.grad.tolist() == [4.0, 0.5]
    assert other.grad[1] == 4


CHANGES: list[tuple[Callable[[Tensor], Tensor], bool]] = [
    (lambda old: old, False),
    (lambda old: old.clone(), False),
    (lambda old: old * 0.5, True),
    (lambda old: old.clone().index_fill_(0, torch.tensor([len(old) - 1]), 9.0), True),
    (lambda old: old.clone().index_fill_(0, torch.tensor([len(old) - 1]), math.nan), True),
    (lambda old: old.clone().index_fill_(0, torch.tensor([0]), math.inf), True),
]


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_any_changed(change: Any, expected: bool, dtype: torch.dtype, finite: bool) -> None:
    old = torch.linspace(-1, 1, 300_000).to(dtype)
    assert bool(any_changed(change(old), old, finite=finite)) is expected


def test_any_changed_of_nothing() -> None:
    assert not any_changed(torch.zeros(0), torch.ones(0), finite=True)


def test_spectral_decomposes_nothing_within_its_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("decomposed")

    monkeypatch.setattr(torch.linalg, "svd", never)
    grad = torch.randn(4, 5)
    (weight,) = two(grad.clone())
    inside = float(torch.linalg.vector_norm(grad)) * 1.01
    gclip.Clipper([weight], f"spectral(threshold={inside})").step()
    assert torch.equal(weight.grad, grad)
    with pytest.raises(gclip.errors.UsageError, match="decomposed"):
        gclip.Clipper([weight], f"spectral(threshold={inside / 1.02})").step()


def test_clippy_passes_over_a_weight_that_is_nan_and_not_updated() -> None:
    seen = Elements(
        torch.tensor([1.0, 0.0, 0.0]), weight=torch.tensor([1.0, math.nan, 2.0]), lr=1.0
    )
    clippy: Any = gclip.create("clippy", relative=0.1, absolute=1e-7)
    new, _ = clippy.transform(seen, {})
    torch.testing.assert_close(new, torch.tensor([0.1, 0.0, 0.0]), rtol=1e-5, atol=0)


def test_a_step_that_is_skipped_is_written_once() -> None:
    (weight,) = two(torch.tensor([3.0, 4.0]))
    version = weight.grad._version
    report = gclip.Clipper([weight], "norm(max_norm=1, rule=skip)").step()
    assert bool(report.skipped)
    assert weight.grad.tolist() == [0, 0]
    assert weight.grad._version == version + 1
