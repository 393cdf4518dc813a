"""Sparse gradients are clipped as the dense ones that they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gclip

SPECS = (
    *(f"norm(max_norm=0.5, scope={s})" for s in ("global", "layer", "tensor", "unit", "element")),
    "norm(max_norm=0.5, p=inf)",
    "agc(clip_factor=0.05)",
    "agc(clip_factor=0.05, scope=tensor)",
    "percentile(p=10)",
    "percentile(p=30, scope=unit)",
    "value(clip_value=0.1)",
    "value(clip_value=0.2, lower=-0.05)",
    "norm(max_norm=0.3, rule=clamp, scope=unit)",
    "norm(max_norm=0.5, rule=soft)",
    "norm(max_norm=0.5, rule=skip)",
    "chain(value(clip_value=0.1), norm(max_norm=0.3, scope=unit))",
    "power(p=0.5)",
    "spam(threshold=10, warmup=1)",
    "spectral(threshold=0.2)",
    "chain(spam(threshold=10, warmup=1), norm(max_norm=0.3))",
)


def net(sparse):
    torch.manual_seed(0)
    return nn.ModuleDict({"words": nn.Embedding(7, 4, sparse=sparse), "head": nn.Linear(4, 2)})


def backward(model, seed):
    model.zero_grad()
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(0, 7, (3, 5), generator=generator)  # some of them several times
    model["head"](model["words"](words)).square().sum().backward()


def rows_of(rows, values):
    """A gradient ``(3, 2)`` of these rows."""
    return torch.sparse_coo_tensor(
        torch.tensor([rows], dtype=torch.long), values, (3, 2), check_invariants=True
    )


def dense(grad):
    return grad.to_dense() if grad.is_sparse else grad


@pytest.mark.parametrize("spec", SPECS)
def test_as_if_dense(spec):
    ours, theirs = net(True), net(False)
    first, second = gclip.Clipper(ours, spec), gclip.Clipper(theirs, spec)
    changed = False
    for step in range(4):
        backward(ours, 3 - step), backward(theirs, 3 - step)  # growing norms
        before = theirs["words"].weight.grad.clone()
        reports = first.step(), second.step()
        grad = ours["words"].weight.grad
        assert grad.is_sparse
        changed |= not torch.equal(before, theirs["words"].weight.grad)
        for mine, his in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(dense(mine.grad), his.grad, rtol=1e-5, atol=1e-7)
        for name in ("norm", "limit", "clipped_norm"):
            mine, his = (getattr(report, name) for report in reports)
            torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-7, equal_nan=True)
    assert changed


def test_rows_that_occur_twice_count_as_their_sum():
    weight = nn.Parameter(torch.zeros(3, 2))
    weight.grad = rows_of([1, 1], torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    report = gclip.Clipper([weight], "norm(max_norm=1)").step()
    assert report.norm.item() == 5
    torch.testing.assert_close(weight.grad.to_dense()[1], torch.tensor([0.6, 0.8]))
    weight.grad = rows_of([1, 1], torch.tensor([[3.0, 1.0], [-3.0, -1.0]]))
    assert gclip.Clipper([weight], "value(clip_value=0.5)").step().norm.item() == 0


def test_within_the_limit_every_bit_stays():
    for spec in ("norm(max_norm=1e6)", "agc(clip_factor=1e6)", "value(clip_value=1e6)"):
        model = net(True)
        backward(model, 0)
        before = model["words"].weight.grad.to_dense()
        gclip.Clipper(model, spec).step()
        assert torch.equal(before, model["words"].weight.grad.to_dense())


def test_no_rows_at_all():
    weight = nn.Parameter(torch.ones(3, 2))
    for spec in SPECS:
        if "layer" in spec:
            continue
        weight.grad = rows_of([], torch.zeros(0, 2))
        report = gclip.Clipper([weight], spec).step()
        assert report.finite
        assert not report.norm.any()


def test_not_finite():
    model = net(True)
    backward(model, 0)
    model["words"].weight.grad._values()[0, 0] = math.nan
    clipper = gclip.Clipper(model, "norm", nonfinite="raise")
    with pytest.raises(FloatingPointError, match=r"step 0: words\.weight$"):
        clipper.step()
    report = gclip.Clipper(model, "norm").step()
    assert report.skipped
    assert all(not dense(p.grad).any() for p in model.parameters())


def test_the_unmeasured_clamp():
    ours, theirs = net(True), net(False)
    for model in (ours, theirs):
        backward(model, 0)
        gclip.Clipper(model, "value(clip_value=0.1)", nonfinite="keep", record=False).step()
    for mine, his in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(dense(mine.grad), his.grad)


@pytest.mark.parametrize("spec", ["norm(max_norm=0.01, side=update)", "acclip", "clippy"])
def test_updates(spec):
    ours, theirs = net(True), net(False)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (ours, theirs)]
    for optimizer in optimizers:
        gclip.attach(optimizer, spec)
    for step in range(3):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            backward(model, step)
            optimizer.step()
    for mine, his in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-6)


def test_sparse_adam_trains():
    model = net(True)
    optimizer = torch.optim.SparseAdam([model["words"].weight])
    handle = gclip.attach(optimizer, "norm(max_norm=0.1)")
    for step in range(3):
        backward(model, step)
        optimizer.step()
    assert handle.record.summary().clip_rate == 1.0
