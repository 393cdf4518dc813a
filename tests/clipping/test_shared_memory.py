"""Gradients that lie in one place, overlap, or are expanded: each is clipped once, as its own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import gclip
from gclip.training.fleet import FleetClipper

SPECS = [
    *(name for name in gclip.names() if gclip.get(name)().side == "gradient"),
    *(f"norm(max_norm=0.5, scope={s})" for s in ("global", "layer", "tensor", "unit", "element")),
    "norm(max_norm=0.3, rule=normalize, scope=unit)",
    "norm(max_norm=0.3, rule=soft)",
    "value(clip_value=0.2)",
    "agc(clip_factor=0.05)",
    "spectral(threshold=0.5)",
    "power(p=0.7)",
    "chain(value(clip_value=0.5), norm(max_norm=0.5, scope=unit))",
]
SHAPES = {"a.weight": (4, 6), "b.weight": (4, 6), "c.weight": (6, 4), "d.bias": (24,)}


def same(made):
    return {name: made if made.shape == s else made.view(s) for name, s in SHAPES.items()}


def overlapping(made):
    flat = torch.cat([made.flatten(), made.flatten().flip(0)])
    return {name: flat[5 * i : 5 * i + 24].view(s) for i, (name, s) in enumerate(SHAPES.items())}


def expanded(made):
    rows = made[:1].expand(4, 6)
    spread = made[0, :1].expand(24)
    return {
        "a.weight": rows,
        "b.weight": torch.zeros(()).expand(4, 6),
        "c.weight": rows.t(),
        "d.bias": spread,
    }


def interleaved(made):
    both = torch.cat([made, -made])
    return {
        "a.weight": both[::2], "b.weight": both[1::2], "c.weight": both[::2].t(),
        "d.bias": torch.ones(24),
    }  # fmt: skip


LAYOUTS = [same, overlapping, expanded, interleaved]


def parameters(seed=0):
    made = torch.Generator().manual_seed(seed)
    return {n: nn.Parameter(torch.randn(s, generator=made)) for n, s in SHAPES.items()}


def give(params, layout, step):
    made = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
    for name, grad in layout(made * 3).items():
        params[name].grad = grad


def give_copies(params, layout, step):
    give(params, layout, step)
    for param in params.values():
        param.grad = param.grad.clone(memory_format=torch.contiguous_format)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spec", SPECS)
def test_as_if_each_had_its_own(spec, layout):
    shared, own = parameters(), parameters()
    settings = {"total_steps": 3, "optimizer": None}
    mine, other = (
        gclip.Clipper(
            p.items(), spec, **{**settings, "optimizer": torch.optim.SGD(p.values(), lr=0.1)}
        )
        for p in (shared, own)
    )
    for step in range(3):
        give(shared, layout, step), give_copies(own, layout, step)
        a, b = mine.step(), other.step()
        torch.testing.assert_close(a.norm, b.norm, rtol=1e-6, atol=0)
        for name in SHAPES:
            torch.testing.assert_close(shared[name].grad, own[name].grad, rtol=1e-5, atol=1e-7)


def test_unmeasured_clamps():
    for spec in ("value(clip_value=0.2)", {"a.*": "value(clip_value=1)", "*": "value"}):
        for layout in LAYOUTS:
            shared, own = parameters(), parameters()
            for params, assign in ((shared, give), (own, give_copies)):
                assign(params, layout, 0)
                gclip.Clipper(params.items(), spec, nonfinite="keep", record=False).step()
            for name in SHAPES:
                torch.testing.assert_close(shared[name].grad, own[name].grad)


def test_across_patterns_and_excluded_parameters():
    params = parameters()
    give(params, same, 0)
    before = {name: p.grad.clone() for name, p in params.items()}
    spec = {"b.*": "norm(max_norm=0.5)", "*": "norm(max_norm=0.25, scope=tensor)"}
    gclip.Clipper(params.items(), spec, exclude=["a.*"]).step()
    assert torch.equal(params["a.weight"].grad, before["a.weight"])
    assert params["b.weight"].grad.norm().item() == pytest.approx(0.5)
    assert params["c.weight"].grad.norm().item() == pytest.approx(0.25)
    assert params["d.bias"].grad.norm().item() == pytest.approx(0.25)


def test_a_gradient_that_is_its_weight_leaves_the_weight_alone():
    weight = nn.Parameter(torch.full((4,), 3.0))
    weight.grad = weight.detach()
    gclip.Clipper([weight], "norm(max_norm=1)").step()
    assert weight.tolist() == [3.0] * 4
    assert weight.grad.tolist() == [0.5] * 4


def test_what_shares_nothing_keeps_its_memory():
    params = parameters()
    flat = torch.randn(96)  # views of one bucket, side by side
    grads = dict(zip(SHAPES, flat.split(24), strict=True))
    clipper = gclip.Clipper(params.items(), "norm(max_norm=0.5)")
    for _ in range(3):
        for name, param in params.items():
            param.grad = grads[name].view(SHAPES[name])
        held = {name: param.grad for name, param in params.items()}
        clipper.step()
        assert all(params[name].grad is held[name] for name in SHAPES)
    assert flat.norm().item() == pytest.approx(0.5)


def test_it_is_noticed_whenever_it_begins():
    params = parameters()
    clipper = gclip.Clipper(params.items(), "norm(max_norm=0.5, scope=tensor)")
    for layout in (give_copies, give, give_copies, give):
        layout(params, same, 0)
        clipper.step()
        for param in params.values():
            assert param.grad.norm().item() == pytest.approx(0.5)
    params["d.bias"].grad = None
    params["b.weight"].grad = params["a.weight"].grad = torch.ones(4, 6)
    clipper.step()
    assert params["b.weight"].grad.norm().item() == pytest.approx(0.5)
    assert params["a.weight"].grad.norm().item() == pytest.approx(0.5)


def test_sparse_rows():
    rows = torch.sparse_coo_tensor(
        [[0, 2]], torch.full((2, 3), 4.0), (5, 3), check_invariants=True
    ).coalesce()
    one, two = (nn.Parameter(torch.zeros(5, 3)) for _ in range(2))
    one.grad = two.grad = rows
    gclip.Clipper([one, two], "norm(max_norm=1, scope=tensor)").step()
    for param in (one, two):
        assert param.grad.to_dense().norm().item() == pytest.approx(1.0)


def test_a_skipped_step_is_zero():
    params = parameters()
    give(params, expanded, 0)
    params["d.bias"].grad = torch.full((1,), torch.nan).expand(24)
    gclip.Clipper(params.items(), "norm").step()
    assert not any(p.grad.any() for p in params.values())


def test_under_attach():
    net = nn.Linear(3, 3, bias=False)
    other = copy.deepcopy(net)
    for model, shared in ((net, True), (other, False)):
        extra = nn.Parameter(torch.ones(3, 3))
        optimizer = torch.optim.SGD([model.weight, extra], lr=1.0)
        gclip.attach(optimizer, "norm(max_norm=1, scope=tensor)")
        grad = torch.full((3, 3), 5.0)
        model.weight.grad, extra.grad = grad, grad if shared else grad.clone()
        optimizer.step()
        torch.testing.assert_close(extra.detach(), torch.full((3, 3), 1 - 1 / 3))
    torch.testing.assert_close(net.weight, other.weight)


def test_fleets():
    for grad in (torch.full((2, 4), 5.0), torch.full((1, 1), 5.0).expand(2, 4)):
        stacks = {name: nn.Parameter(torch.ones(2, 4)) for name in ("a", "b")}
        for stack in stacks.values():
            stack.grad = grad
        FleetClipper(stacks, ["norm(max_norm=1)", "norm(max_norm=2, scope=tensor)"]).step()
        for stack in stacks.values():
            assert stack.grad[0].norm().item() == pytest.approx(0.5**0.5)
            assert stack.grad[1].norm().item() == pytest.approx(2.0)
