"""Every strategy against an independent float64 reference, in every scope, and known numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import gclip
from tests import reference

SCOPES = ("global", "layer", "tensor", "unit")


def run(spec, params, fill, steps, size, expected):
    """Clip `steps` random gradients and compare each with what `expected` makes of them."""
    clipper = gclip.Clipper(params.items(), spec)
    for step in range(steps):
        grads = fill(params, step, size * (1 + step % 4))
        wide = {name: g.double().numpy() for name, g in grads.items()}
        wanted = expected(wide)
        clipper.step()
        for name, param in params.items():
            np.testing.assert_allclose(
                param.grad.double().numpy(), wanted[name], rtol=3e-6, atol=1e-9, err_msg=name
            )


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("scope", SCOPES)
def test_norm(scope, p, parameters, fill):
    spec = gclip.create("norm", max_norm=2.5, scope=scope, p=p)
    run(spec, parameters(), fill, 3, 1.0, lambda g: reference.norm_clip(g, scope, 2.5, p))


def test_norm_by_element_is_value(parameters, fill):
    for spec in ("norm(max_norm=0.7, scope=element)", "value(clip_value=0.7)"):
        run(spec, parameters(), fill, 3, 1.0, lambda g: reference.value_clip(g, -0.7, 0.7))


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1.0), (-2.0, 0.3), (0.0, 0.5), (-0.5, 0.0)])
def test_value_with_unequal_bounds(low, high, parameters, fill):
    spec = gclip.create("value", clip_value=high, lower=low)
    run(spec, parameters(), fill, 3, 0.4, lambda g: reference.value_clip(g, low, high))


@pytest.mark.parametrize("scope", SCOPES)
def test_agc(scope, parameters, fill):
    params = parameters()
    with torch.no_grad():
        params["head.weight"][2] = 0.0  # a unit below the floor
        params["conv.bias"].zero_()
    weights = {name: p.detach().double().numpy() for name, p in params.items()}
    spec = gclip.create("agc", clip_factor=0.3, scope=scope)
    run(spec, params, fill, 3, 0.5, lambda g: reference.agc_clip(g, weights, scope, 0.3, 1e-3))


@pytest.mark.parametrize("window", [None, 1, 7])
@pytest.mark.parametrize("p", [0.0, 10.0, 50.0, 100.0])
@pytest.mark.parametrize("scope", [*SCOPES, "element"])
def test_percentile(scope, p, window, parameters, fill):
    clip = reference.PercentileClip(p, window)
    spec = gclip.create("percentile", p=p, scope=scope, window=window)
    run(spec, parameters(), fill, 40, 1.0, lambda g: clip(g, scope))


def test_none_changes_nothing(parameters, fill):
    params = parameters()
    grads = fill(params, 0, 1e6)
    gclip.Clipper(params.items(), "none").step()
    assert all(torch.equal(params[n].grad, grads[n]) for n in params)


def test_torch_norm_and_value_agree(parameters, fill):
    for p in (1.0, 2.0, math.inf):
        ours, theirs = parameters(), parameters()
        fill(ours, 1, 3.0), fill(theirs, 1, 3.0)
        report = gclip.Clipper(ours.values(), gclip.create("norm", max_norm=0.5, p=p)).step()
        total = torch.nn.utils.clip_grad_norm_(theirs.values(), 0.5, norm_type=p)
        assert report.norm.item() == pytest.approx(total.item(), rel=1e-6)
        for name in ours:
            torch.testing.assert_close(ours[name].grad, theirs[name].grad, rtol=2e-6, atol=0)
    ours, theirs = parameters(), parameters()
    fill(ours, 2), fill(theirs, 2)
    gclip.Clipper(ours.values(), "value(clip_value=0.3)").step()
    torch.nn.utils.clip_grad_value_(theirs.values(), 0.3)
    assert all(torch.equal(ours[name].grad, theirs[name].grad) for name in ours)


def test_agc_published_numbers():
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [9.0, 40.0], [0.0, 0.0]]))
    weight.grad = torch.tensor([[7.0, 24.0], [5.0, 12.0], [3.0, 4.0]])
    gclip.Clipper([weight], "agc(clip_factor=0.5, eps=0.001)").step()
    wanted = torch.tensor([[0.7, 2.4], [5.0, 12.0], [3e-4, 4e-4]])
    torch.testing.assert_close(weight.grad, wanted, rtol=1e-6, atol=0)

    bias = torch.nn.Parameter(torch.zeros(3))
    bias.grad = torch.tensor([1.0, 2.0, 2.0])
    gclip.Clipper([bias], "agc").step()
    wanted = torch.tensor([1e-5 / 3, 2e-5 / 3, 2e-5 / 3])
    torch.testing.assert_close(bias.grad, wanted, rtol=1e-6, atol=0)

    scalar = torch.nn.Parameter(torch.tensor(2.0))
    scalar.grad = torch.tensor(5.0)
    gclip.Clipper([scalar], "agc(clip_factor=0.5)").step()
    assert scalar.grad.item() == 1.0


@pytest.mark.parametrize(
    ("p", "limits"),
    [
        (50, [1, 1.5, 2, 2, 2, 2, 2, 2, 2]),
        (10, [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 0.9]),
    ],
)
def test_autoclip_published_numbers(p, limits):
    found, clipped = gclip.simulate(gclip.create("percentile", p=p), [1, 2, 3, 2, 2, 10, 2, 2, 0.5])
    np.testing.assert_allclose(found[:, 0], limits, rtol=1e-6)
    np.testing.assert_allclose(
        clipped[:, 0], np.minimum([1, 2, 3, 2, 2, 10, 2, 2, 0.5], limits), rtol=1e-6
    )


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    ("rule", "factor"),
    [
        ("scale", lambda n, c: min(1.0, c / n)),
        ("normalize", lambda n, c: c / n),
        ("soft", lambda n, c: c / (c + n)),
    ],
)
def test_rules(rule, factor, scope, parameters, fill):
    params = parameters()
    grads = fill(params, 3)
    gclip.Clipper(params.items(), gclip.create("norm", scope=scope, rule=rule)).step()
    wide = {name: g.double().numpy() for name, g in grads.items()}
    for group in reference.groups_of({n: g.shape for n, g in wide.items()}, scope):
        times = factor(reference.norm_of(wide, group), 1.0)
        for name, index in group:
            np.testing.assert_allclose(
                params[name].grad.numpy()[index], wide[name][index] * times, rtol=2e-6
            )


def test_clamp_rule_cuts_elements_at_the_groups_limit(parameters, fill):
    params = parameters()
    grads = fill(params, 4)
    gclip.Clipper(params.items(), "norm(max_norm=0.4, rule=clamp)").step()
    assert all(torch.equal(params[n].grad, grads[n].clamp(-0.4, 0.4)) for n in params)


def test_skip_rule_zeroes_every_gradient_of_the_step(parameters, fill):
    params = parameters()
    clipper = gclip.Clipper(params.items(), {"conv.*": "norm(rule=skip)", "*": "none"})
    grads = fill(params, 5, 0.001)
    report = clipper.step()
    assert not report.skipped
    assert all(torch.equal(params[n].grad, grads[n]) for n in params)
    fill(params, 5, 10.0)
    report = clipper.step()
    assert report.skipped
    assert all(not params[n].grad.any() for n in params)


def test_chain_applies_in_order(parameters, fill):
    params = parameters()
    grads = {n: g.double().numpy() for n, g in fill(params, 6, 2.0).items()}
    gclip.Clipper(params.items(), gclip.chain("value(clip_value=1)", "norm(max_norm=1)")).step()
    wanted = reference.norm_clip(reference.value_clip(grads, -1, 1), "global", 1.0)
    for name in params:
        np.testing.assert_allclose(params[name].grad.numpy(), wanted[name], rtol=3e-6)
