"""Element by element, whole or in pieces: the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gclip
from gclip.core import pieces
from gclip.core.pieces import in_pieces


@pytest.mark.parametrize("shape", [(40,), (3, 40), (2, 3, 7)])
def test_the_same_as_the_whole(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    values, other = torch.randn(2, *shape).unbind()
    each = torch.arange(1.0, 1 + values[..., :1].numel()).view(*shape[:-1], 1)
    calls: list[int] = []

    def both(one: Tensor, two: Tensor, factor: Tensor, number: float) -> tuple[Tensor, ...]:
        calls.append(one.numel())
        return one * two * factor + number, one.double() - factor

    whole = both(values, other, each, 2.0)
    monkeypatch.setattr(pieces, "PIECE", 16)
    found = in_pieces(both, values, other, each, 2.0)
    for mine, wanted in zip(found, whole, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=0)
    assert sum(calls[1:]) == values.numel()
    assert len(calls[1:]) > 1
    assert max(calls[1:]) <= 16


@pytest.mark.parametrize("spec", ["power", "spam(warmup=1, threshold=10)", "cclip", "acclip"])
def test_strategies_that_use_them(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights after some steps, of a tensor in one piece and in several."""

    def trained() -> Tensor:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 100).double())
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, dampening=0.9)
        handle = gclip.attach(optimizer, spec)
        generator = torch.Generator().manual_seed(0)
        for step in range(6):
            spike = 50.0 if step == 4 else 1.0
            weight.grad = torch.randn(100, generator=generator).double() * spike
            optimizer.step()
        handle.remove()
        return weight.detach()

    whole = trained()
    monkeypatch.setattr(pieces, "PIECE", 16)
    torch.testing.assert_close(trained(), whole, rtol=1e-13, atol=0)
