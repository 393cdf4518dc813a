"""Clipping inside a fused optimizer: the same steps as clipping before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gclip
from gclip.errors import UsageError

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
EXTRA: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}, "adam": {}, "adamw": {}}


def made(name: str, strategy: str, fold: bool, **more: Any) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    optimizer = OPTIMIZERS[name](net.parameters(), lr=0.05, fused=True, **EXTRA[name])
    return net, optimizer, gclip.attach(optimizer, strategy, fold=fold, **more)


def give(net: nn.Module, step: int, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=generator) * size


@pytest.mark.parametrize("strategy", ["norm(max_norm=1)", "percentile(p=30)", "soft", "zclip"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_steps(name: str, strategy: str) -> None:
    before, within = (made(name, strategy, fold) for fold in (False, True))
    for step in range(12):
        for net, optimizer, _ in (before, within):
            give(net, step, size=0.01 if step % 3 == 0 else 1.0)
            if step == 5:
                net[0].weight.grad[0, 0] = torch.nan
            optimizer.step()
        ours, theirs = within[2].report, before[2].report
        assert bool(ours.skipped) == bool(theirs.skipped) == (step == 5)
        if step != 5:
            torch.testing.assert_close(ours.norm, theirs.norm)
            torch.testing.assert_close(ours.clipped_norm, theirs.clipped_norm)
        for a, b in zip(before[0].parameters(), within[0].parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
        assert not hasattr(within[1], "grad_scale")
        assert not hasattr(within[1], "found_inf")
    ours, theirs = (handle.record.summary() for *_, handle in (within, before))
    assert (ours.verdict, ours.clip_rate, ours.skipped) == (
        theirs.verdict, theirs.clip_rate, theirs.skipped,
    )  # fmt: skip


def test_gradients_are_read_and_not_written_by_the_clipper() -> None:
    net, _, handle = made("sgd", "norm(max_norm=0.1)", True)
    give(net, 0)
    saved = [p.grad.clone() for p in net.parameters()]
    report = handle.clipper.step()
    assert float(report.clipped) == 1.0
    assert all(torch.equal(p.grad, was) for p, was in zip(net.parameters(), saved, strict=True))


def test_a_limit_of_zero_gives_zero_gradients() -> None:
    net, optimizer, _ = made("sgd", "norm(max_norm=0)", True)
    give(net, 0)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.step()
    assert all(torch.equal(p, was) for p, was in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("strategy", "more", "said"),
    [
        ("agc", {}, "one limit for all"),
        ("value", {}, "one limit for all"),
        ("norm(rule=skip)", {}, "one limit for all"),
        ("norm", {"exclude": ["*0*"], "model": True}, "one limit for all"),
        ("norm(side=update)", {}, "one limit for all"),
        ("norm", {"nonfinite": "keep"}, "nonfinite"),
    ],
)
def test_what_cannot_be_folded_is_said(strategy: str, more: dict[str, Any], said: str) -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    if "model" in more:
        more = {**more, "model": net}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=True)
    with pytest.raises(UsageError, match=said):
        gclip.attach(optimizer, strategy, fold=True, **more)
    plain = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(UsageError, match="needs a fused optimizer: SGD"):
        gclip.attach(plain, "norm", fold=True)
