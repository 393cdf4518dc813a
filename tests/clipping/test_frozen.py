"""Frozen parameters: as if they were not there, whatever they are; and they come and go."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gclip
from gclip.training.fleet import FleetClipper

SCOPES = ("global", "layer", "tensor", "unit")
SPECS = [
    *(f"{n}(scope={s})" for n in ("agc", "block_rms", "average_norm") for s in SCOPES[:3]),
    "agc",
    "larc(scope=global)",
    "norm(max_norm=0.5)",
    "percentile(p=30)",
    "value(clip_value=0.1)",
    "clippy",
    "update_rms",
    "norm(max_norm=0.01, side=update)",
    "agc(side=update, scope=global)",
    "power",
    "spectral(threshold=0.1)",
]


class Net(nn.Module):
    """A frozen part of several kinds, one tensor of it in the layer of a trained one."""

    def __init__(self, frozen=True):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(4, 3)
        if frozen:
            self.codes = nn.Parameter(torch.ones(5, 4, dtype=torch.int8), requires_grad=False)
            self.flags = nn.Parameter(torch.ones(2, dtype=torch.bool), requires_grad=False)
            self.base = nn.Linear(50, 50).requires_grad_(False)
            self.head.scale = nn.Parameter(torch.full((9, 9), 1e3), requires_grad=False)


def grads(model, step):
    torch.manual_seed(step)
    model.head.weight.grad, model.head.bias.grad = torch.randn(3, 4), torch.randn(3)


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_the_same_as_with_the_trained_parameters_alone(spec, stale):
    mine, other = Net(), Net(frozen=False)
    trained = [p for p in mine.parameters() if p.requires_grad]
    handles = []
    for model in (mine, other):
        optimizer = torch.optim.SGD(model.head.parameters() if model is other else trained, lr=0.1)
        handles.append((gclip.attach(optimizer, spec, model=model), optimizer))
    clippers = [
        gclip.Clipper(model, spec, optimizer=optimizer)
        for model, (handle, optimizer) in zip((mine, other), handles, strict=True)
    ]
    for step in range(3):
        left = []
        for model, clipper, (_, optimizer) in zip((mine, other), clippers, handles, strict=True):
            grads(model, step)
            if stale and model is mine:
                model.base.weight.grad = torch.full((50, 50), 1e4)
            clipper.step()
            with clipper.updating():
                for param in (model.head.weight, model.head.bias):
                    param.data.sub_(0.1 * param.grad)
            left.append([model.head.weight.grad.clone(), model.head.bias.grad.clone()])
            left[-1] += [model.head.weight.detach().clone(), model.head.bias.detach().clone()]
            grads(model, step + 10)
            optimizer.step()
            left[-1] += [model.head.weight.detach().clone()]
        for a, b in zip(*left, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    if stale:
        assert mine.base.weight.grad.eq(1e4).all()


def test_they_come_and_go():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    clipper = gclip.Clipper(model, "block_rms(scope=global)")
    alone = gclip.Clipper(model[1], "block_rms(scope=global)")
    whole = [
        gclip.Clipper(model, "agc(scope=global)"),
        gclip.Clipper(model[1], "agc(scope=global)"),
    ]
    for frozen in (False, True, False, True, True):
        model[0].requires_grad_(not frozen)
        for param in model.parameters():  # the frozen ones keep an old one
            param.grad = torch.ones_like(param)
        for made, one in ((clipper, alone), whole):
            limit, small = made.step().limit, one.step().limit
            assert (limit.item() == pytest.approx(small.item(), rel=1e-6)) is frozen


def test_a_parameter_without_a_gradient_still_counts_while_it_is_trained():
    # It waits for its turn (an expert that saw no example): the limit does not jump meanwhile.
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    for spec in ("block_rms(scope=global)", "agc(scope=global)"):
        clipper, limits = gclip.Clipper(model, spec), []
        for there in (True, False):
            for param in model[0].parameters():
                param.grad = torch.ones_like(param) if there else None
            for param in model[1].parameters():
                param.grad = torch.ones_like(param)
            limits.append(clipper.step().limit.item())
        assert limits[0] == limits[1]


def test_a_stale_gradient_that_is_not_finite_is_nobodys_business():
    model = Net()
    model.base.bias.grad = torch.full((50,), torch.nan)
    grads(model, 0)
    report = gclip.Clipper(model, "norm(max_norm=0.5)").step()
    assert report.finite
    assert report.clipped_norm.item() == pytest.approx(0.5)


def test_rates_of_frozen_parameters_do_not_matter():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    rates = [{"params": model[0].parameters(), "lr": 1e-5}, {"params": model[1].parameters()}]
    optimizers = [torch.optim.SGD(rates, lr=0.1), torch.optim.SGD(model[1].parameters(), lr=0.1)]
    limits = []
    for optimizer in optimizers:
        for param in model[1].parameters():
            param.grad = torch.ones_like(param)
        report = gclip.Clipper(model, "larc(scope=global)", optimizer=optimizer).step()
        limits.append(report.limit.item())
    assert limits[0] == limits[1]


def test_surveys_see_what_clippers_see():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    surveys = gclip.Survey(model), gclip.Survey(model[1])
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    for survey in surveys:
        survey.watch()
    for name in ("norm", "weight_norm", "sizes"):
        mine, alone = (getattr(survey.watched("global"), name) for survey in surveys)
        torch.testing.assert_close(mine, alone)


@pytest.mark.parametrize("spec", ["agc(scope=global)", "block_rms(scope=global)", "norm"])
def test_fleets(spec):
    stacks = {name: nn.Parameter(torch.ones(2, 4)) for name in ("a", "b")}
    stacks["a"].requires_grad_(False)
    for stack in stacks.values():
        stack.grad = torch.full((2, 4), 9.0)
    one = nn.Parameter(torch.ones(4))
    one.grad = torch.full((4,), 9.0)
    want = gclip.Clipper([one], spec).step()
    fleet = FleetClipper(stacks, [spec, spec])
    fleet.step()
    assert stacks["a"].grad.eq(9.0).all()
    for grad in stacks["b"].grad:
        torch.testing.assert_close(grad, one.grad)
    assert want.clipped.all()
