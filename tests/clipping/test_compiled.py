"""Steps inside torch.compile: the values of plain ones, and nothing compiled again and again."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import gclip

STEPS = 14
SETTINGS = [
    "norm(max_norm=linear(1, 0.1))",
    "value(clip_value=exponential(1, 0.01))",
    "norm(max_norm=0.5, warmup=6)",
    "percentile(window=5)",
    "zclip(scope=layer)",
    "agc(scope=tensor)",
    "norm(max_norm=0.5, rule=skip)",
    "norm(max_norm=0.01, side=update)",
    "value(lower=-0.1)",
    "chain(value(clip_value=0.1), norm(max_norm=0.5, scope=unit))",
]


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about itself
        yield
    torch.compiler.reset()


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ConvTranspose1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4), nn.Linear(4, 1)
    )


def batch(step):
    made = torch.Generator().manual_seed(step)
    x = torch.randn(16, 2, 4, generator=made)
    return x, torch.randn(16, 1, generator=made) * (30 if step % 5 == 3 else 1)


def train(spec, via, *, backend=None, nonfinite_at=None, **settings):
    """`STEPS` steps; the weights after each, the record, and how many graphs there were then."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    if via == "attach":
        handle = gclip.attach(optimizer, spec, model=model, total_steps=STEPS, **settings)
        clipper, call = handle.clipper, lambda: optimizer.step()
    else:
        clipper = gclip.Clipper(model, spec, optimizer=optimizer, total_steps=STEPS, **settings)
        call = clipper.step if via == "bound" else lambda: clipper.step()
    if backend is not None:
        call = torch.compile(call, backend=backend)
    weights, graphs = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        x, y = batch(step)
        if clipper.per_sample:
            clipper.backward(x, y, nn.functional.mse_loss)
        else:
            nn.functional.mse_loss(model(x), y).backward()
        if step == nonfinite_at:
            model[0].weight.grad[0, 0] = math.inf
        call()
        if via != "attach":
            with clipper.updating():
                optimizer.step()
        weights.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))
        graphs.append(counters["stats"]["unique_graphs"])
    return weights, clipper.record.arrays(), graphs


def compare(spec, via, backend, **settings):
    plain, record, _ = train(spec, via, **settings)
    compiled, other, graphs = train(spec, via, backend=backend, **settings)
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for name, column in record.items():
        np.testing.assert_allclose(column, other[name], rtol=1e-5, err_msg=name)
    return graphs


# The contract holds every strategy to the same values. Here, of more steps: memory of windows, of
# elements, steps that are skipped, and updates.
KINDS = ("percentile", "sigma_skip", "acclip")


@pytest.mark.parametrize(
    ("spec", "via"),
    [*((name, "attach") for name in KINDS), *((spec, "bound") for spec in SETTINGS)],
)
def test_the_same_values_and_few_graphs(spec, via):
    graphs = compare(spec, via, "eager")
    assert 0 < graphs[-1] <= 8
    # Nothing is compiled once the first steps are made, but for the first one that is skipped.
    assert graphs[-1] <= graphs[4] + 1


def test_by_the_default_compiler():
    # Within a function of the user's; through `attach`, the contract compiles like this.
    graphs = compare("norm", "lambda", "inductor")
    assert 0 < graphs[-1] <= 8
    assert graphs[4] == graphs[-1]


def test_a_ratio_to_the_weights_is_not_taken_of_the_gradients():
    # Memory that is used again for every norm would be one and the same to the compiler.
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, 2.0)
    clipper = gclip.Clipper(model, "agc(clip_factor=0.01)")
    step = torch.compile(clipper.step)
    for _ in range(2):
        for param in model.parameters():
            param.grad = torch.full_like(param, 5.0)
        report = step()
    torch.testing.assert_close(report.limit[:2], torch.full((2,), 0.01 * 2 * 3**0.5))
    torch.testing.assert_close(model.weight.grad, torch.full((2, 3), 0.02))


@pytest.mark.parametrize(
    ("via", "nonfinite"),
    [
        ("bound", "skip"),
        ("attach", "keep"),
        pytest.param("bound", "keep", marks=pytest.mark.drill),
        pytest.param("attach", "skip", marks=pytest.mark.drill),
    ],
)
def test_steps_that_are_not_finite(via, nonfinite):
    plain, record, _ = train("norm(max_norm=0.5)", via, nonfinite_at=6, nonfinite=nonfinite)
    other, same, graphs = train(
        "norm(max_norm=0.5)", via, backend="eager", nonfinite_at=6, nonfinite=nonfinite
    )
    for a, b in zip(plain, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
    assert record["finite"].tolist() == same["finite"].tolist()
    assert record["finite"][6] == 0
    assert graphs[-1] <= 10


def test_squares_that_overflow_and_gradients_that_share_memory():
    one, two = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    clipper = gclip.Clipper([one, two], "norm(max_norm=1, scope=tensor)")
    step = torch.compile(clipper.step, backend="eager")
    for _ in range(3):
        one.grad = two.grad = torch.full((3,), 1e25)
        assert step().finite
        for param in (one, two):
            torch.testing.assert_close(param.grad, torch.full((3,), 3**-0.5))


def test_sparse_gradients():
    plain, compiled = (nn.Embedding(5, 3, sparse=True) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    steps = [gclip.Clipper(m, "norm(max_norm=0.1, scope=unit)").step for m in (plain, compiled)]
    steps[1] = torch.compile(steps[1], backend="eager")
    for _ in range(3):
        for model, step in zip((plain, compiled), steps, strict=True):
            model.zero_grad()
            model(torch.tensor([0, 2, 2])).square().sum().backward()
            step()
        torch.testing.assert_close(compiled.weight.grad.to_dense(), plain.weight.grad.to_dense())


def test_unmeasured_clamps():
    plain, _, _ = train("value(clip_value=0.1)", "bound", nonfinite="keep", record=False)
    other, _, graphs = train(
        "value(clip_value=0.1)", "bound", backend="eager", nonfinite="keep", record=False
    )
    assert all(map(torch.equal, plain, other))
    assert graphs[-1] <= 1


def test_complex_gradients_are_clamped_by_modulus():
    grads = torch.tensor([3 + 4j, 0.3 - 0.4j])
    left = []
    for compiled in (False, True):
        param = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
        step = gclip.Clipper([param], "value(clip_value=1)").step
        step = torch.compile(step, backend="eager") if compiled else step
        for _ in range(2):
            param.grad = grads.clone()
            step()
        left.append(param.grad)
    torch.testing.assert_close(left[1], left[0])
    torch.testing.assert_close(left[0], torch.tensor([0.6 + 0.8j, 0.3 - 0.4j]))
