"""States load by name, and only where they belong."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict

import gclip
from gclip.core.strategy import Strategy

SHAPES = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (2, 3), "c.scale": ()}
REMEMBERING = [
    name
    for name in gclip.names()
    if type(gclip.create(name)).remember is not Strategy.remember
    and "gradient" in type(gclip.create(name)).sides
]


def parameters(order: list[str] | None = None) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    made = {n: nn.Parameter(torch.randn(s, generator=generator)) for n, s in SHAPES.items()}
    return {name: made[name] for name in order or SHAPES}


def fill(params: dict[str, nn.Parameter], step: int) -> None:
    for place, name in enumerate(SHAPES):
        if name in params:
            generator = torch.Generator().manual_seed(100 * step + place)
            size = math.exp(math.sin(7 * step + place))
            params[name].grad = torch.randn(SHAPES[name], generator=generator) * size


def scopes(name: str) -> list[str]:
    return [s for s in type(gclip.create(name)).scopes if s != "element" or name != "random"]


def spellings() -> list[str]:
    return [f"{name}(scope={scope})" for name in REMEMBERING for scope in scopes(name)]


@pytest.mark.parametrize("spec", [s for s in spellings() if not s.startswith("random")])
def test_in_another_order_of_the_parameters(spec):
    first, second = parameters(), parameters(["c.scale", "b.weight", "a.bias", "a.weight"])
    ours, theirs = (
        gclip.Clipper(p.items(), spec, optimizer=torch.optim.SGD(p.values(), lr=0.1))
        for p in (first, second)
    )
    for step in range(30):
        fill(first, step)
        ours.step()
    theirs.load_state_dict(ours.state_dict())
    for step in range(30, 34):
        fill(first, step), fill(second, step)
        ours.step(), theirs.step()
        for name in SHAPES:
            torch.testing.assert_close(second[name].grad, first[name].grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("spec", spellings())
def test_another_set_of_parameters_is_refused(spec):
    params = parameters()
    optimizer = torch.optim.SGD(params.values(), lr=0.1)
    clipper = gclip.Clipper(params.items(), spec, optimizer=optimizer)
    fill(params, 0)
    clipper.step()
    state = clipper.state_dict()
    fewer = {name: params[name] for name in ("a.weight", "a.bias")}
    renamed = {name.replace("b.", "d."): param for name, param in params.items()}
    reshaped = {**params, "b.weight": nn.Parameter(torch.ones(3, 3))}
    for others, said in (
        (fewer, "is about b.weight, which this clipper does not have"),
        (renamed, "is about b.weight, which this clipper does not have"),
        (reshaped, r"b.weight of the shape \(2, 3\), which is \(3, 3\) here"),
    ):
        optimizer = torch.optim.SGD(others.values(), lr=0.1)
        other = gclip.Clipper(others.items(), spec, optimizer=optimizer)
        with pytest.raises(ValueError, match=said):
            other.load_state_dict(state)
    more = {**params, "d.bias": nn.Parameter(torch.ones(2))}
    optimizer = torch.optim.SGD(more.values(), lr=0.1)
    with pytest.raises(ValueError, match="knows nothing of d.bias"):
        gclip.Clipper(more.items(), spec, optimizer=optimizer).load_state_dict(state)


@pytest.mark.parametrize("wrong", [{}, {"step": 1}, {"step": 1, "strategies": [], "memory": []}, 3])
def test_something_else_is_no_state(wrong):
    with pytest.raises(ValueError, match="not the state of a clipper"):
        gclip.Clipper(parameters().items(), "norm").load_state_dict(wrong)


def test_a_state_under_a_wrapper_is_that_of_the_model():
    net = nn.Sequential(nn.Linear(2, 2))
    clipper = gclip.Clipper(torch.compile(net), "percentile(scope=tensor)")
    for param in net.parameters():
        param.grad = torch.ones_like(param)
    clipper.step()
    plain = gclip.Clipper(net, "percentile(scope=tensor)")
    plain.load_state_dict(clipper.state_dict())
    assert plain.state_dict()["parts"][0]["groups"] == ["0.weight", "0.bias"]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("spec", ["percentile", "percentile(scope=tensor)", "spam", "sigma_skip"])
def test_distributed_checkpoints_load_what_they_saved(spec, tmp_path):
    """Its loader fills what it is given: memory and record have other shapes than when new."""
    params, others = parameters(), parameters()
    optimizer = torch.optim.SGD(params.values(), lr=0.0)
    handle = gclip.attach(optimizer, spec)
    for step in range(5):
        fill(params, step)
        optimizer.step()
    dcp.save({"clip": handle.state_dict()}, checkpoint_id=tmp_path, no_dist=True)
    again = gclip.attach(torch.optim.SGD(others.values(), lr=0.0), spec)
    fresh = {"clip": again.state_dict()}
    dcp.load(fresh, checkpoint_id=tmp_path, no_dist=True)
    again.load_state_dict(fresh["clip"])
    assert len(again.record) == 5
    for step in range(5, 8):
        fill(params, step), fill(others, step)
        optimizer.step(), again.optimizer.step()
        assert all(torch.equal(params[n].grad, others[n].grad) for n in SHAPES)


def test_making_an_optimizers_state_is_no_step_of_training():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    for make in (torch.optim.SGD, torch.optim.Adam):
        optimizer = make(model.parameters(), lr=0.01)
        handle = gclip.attach(optimizer, "percentile(p=10)")
        get_state_dict(model, optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 3)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            get_state_dict(model, optimizer)
        norms = handle.record.arrays()["norm"]
        assert len(norms) == 3
        assert (norms > 0).all()


@pytest.mark.parametrize(
    "spec", [f"{name}(scope={scope})" for name in REMEMBERING for scope in scopes(name)]
)
def test_a_step_of_zeros_never_enters_memory(spec):
    first, second = parameters(), parameters()
    optimizers = [torch.optim.SGD(p.values(), lr=0.1) for p in (first, second)]
    ours, theirs = (
        gclip.Clipper(p.items(), spec, optimizer=o)
        for p, o in zip((first, second), optimizers, strict=True)
    )
    for step in range(10):
        fill(first, step), fill(second, step)
        ours.step(), theirs.step()
        if step == 2:
            for param in first.values():
                param.grad.zero_()
            ours.step()
            assert all(not p.grad.any() for p in first.values())
        for name in SHAPES:
            assert torch.equal(first[name].grad, second[name].grad) or step == 2
    assert len(ours.record) == 11
