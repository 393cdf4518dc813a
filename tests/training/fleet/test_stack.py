"""A stacked model computes, for every run, what that run's model computes."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.errors import UsageError
from gclip.training import models
from gclip.training.fleet import stacked_modules
from gclip.training.fleet.stack import (
    select_runs,
    stack,
    unstack,
    unsupported_layer,
    unsupported_model,
)

RUNS, BATCH = 2, 3


def wide(model: nn.Module) -> nn.Module:
    """In float64, where the order of sums leaves no trace."""
    return model.double()


def away_from_the_start(model: nn.Module) -> None:
    """Gains that are 0 or 1 at first would hide what is behind them."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gain"):
                parameter += torch.rand(parameter.shape, generator=generator)


@pytest.mark.parametrize("shared", [True, False], ids=["one batch", "own batches"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.drill if name == "resnet18" else ())
        for name in models.names()
        if name != "lstm"
    ],
)
def test_values_and_gradients_are_those_of_each_model(name: str, shared: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    single = [wide(models.build(name, seed=seed)) for seed in range(RUNS)]
    for model in single:
        away_from_the_start(model)
    together = stack(single)
    images = [torch.randn(BATCH, 3, 32, 32, generator=generator).double() for _ in range(RUNS)]
    if shared:
        images = [images[0]] * RUNS
    labels = torch.randint(10, (BATCH,), generator=generator)
    logits = together(images[0] if shared else torch.cat(images, 1))
    assert logits.shape == (RUNS, BATCH, 10)
    sum((F.cross_entropy(each, labels) for each in logits), torch.zeros(())).backward()
    grads = {name: p.grad for name, p in together.named_parameters()}
    for run, model in enumerate(single):
        own = model(images[run])
        torch.testing.assert_close(logits[run], own, rtol=1e-9, atol=1e-9)
        F.cross_entropy(own, labels).backward()
        for key, parameter in model.named_parameters():
            grad = grads[key]
            assert isinstance(grad, Tensor)
            torch.testing.assert_close(grad[run], parameter.grad, rtol=1e-7, atol=1e-9)
        # Batch norms have seen the same.
        state = unstack(together, run)
        for key, value in model.named_buffers():
            if value.is_floating_point():
                torch.testing.assert_close(state[key], value, rtol=1e-9, atol=1e-9)
    together.eval()
    torch.testing.assert_close(
        together(images[0])[1], single[1].eval()(images[0]), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("shared", [True, False], ids=["one batch", "own batches"])
def test_wide_convolutions_one_after_another_are_those_in_groups(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2).double() for _ in range(3)]
    images = torch.randn(2, 4 if shared else 12, 8, 8, dtype=torch.float64)
    outcomes = []
    for wide in (1, 1000):
        monkeypatch.setattr(stacked_modules, "_MANY_WEIGHTS", wide)
        together = stack([nn.Sequential(layer) for layer in layers])
        given = images.clone().requires_grad_()
        found = together(given)
        found.square().sum().backward()
        outcomes.append([found, given.grad, *(p.grad for p in together.parameters())])
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other)


def test_runs_that_leave_take_their_weights_along() -> None:
    single = [models.build("resnet9", seed=seed) for seed in range(3)]
    together = stack(single)
    select_runs(together, [2, 0])
    for place, model in enumerate([single[2], single[0]]):
        for name, value in unstack(together, place).items():
            assert torch.equal(value, model.state_dict()[name]), name
    assert together(torch.randn(2, 3, 32, 32)).shape == (2, 2, 10)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.LSTM(3, 3)), r"Sequential.0 \(LSTM\) cannot be stacked; known layers: "),
        (nn.Sequential(Own()), r"Sequential.0 \(Own\) cannot be stacked"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding="same")), "padding"),
        (nn.Sequential(nn.Flatten(0)), "only Flatten"),
    ],
    ids=["unknown", "weights of its own", "padding", "flatten"],
)
def test_what_cannot_be_stacked_is_said(model: nn.Module, reason: str) -> None:
    assert re.search(reason, unsupported_layer(model))
    assert unsupported_layer(models.build("lenet")) == ""


class Foreign(nn.Module):
    """A plugin's: its forward pass takes dimension 1 for its own channels, and it has a batch norm,
    weights of its own, and some that are frozen."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(8)
        self.scale = nn.Parameter(torch.rand(8))
        self.shift = nn.Parameter(torch.rand(8), requires_grad=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.norm(torch.cat([x, x.square()], 1)).mean((2, 3))
        return self.head(x * self.scale + self.shift)


@pytest.mark.parametrize("shared", [True, False], ids=["one batch", "own batches"])
def test_a_foreign_model_is_mapped_over_its_weights(shared: bool) -> None:
    single = [wide(Foreign(seed)) for seed in range(3)]
    assert unsupported_layer(single[0]) == (
        "Foreign (Foreign) cannot be stacked: its forward pass is not the library's"
    )
    assert unsupported_model(single[0]) == ""
    together = stack(single)
    images = [torch.randn(BATCH, 3, 6, 6, dtype=torch.float64) for _ in range(3)]
    if shared:
        images = [images[0]] * 3
    logits = together(images[0] if shared else torch.cat(images, 1))
    logits.square().sum().backward()
    assert [n for n, _ in together.named_parameters()] == [
        n for n, _ in single[0].named_parameters()
    ]
    assert not together.get_parameter("shift").requires_grad
    for run, model in enumerate(single):
        own = model(images[run])
        own.square().sum().backward()
        torch.testing.assert_close(logits[run], own, rtol=1e-9, atol=1e-9)
        for name, parameter in model.named_parameters():
            grad = together.get_parameter(name).grad
            if parameter.grad is None:
                assert grad is None
            else:
                assert grad is not None
                torch.testing.assert_close(grad[run], parameter.grad, rtol=1e-8, atol=1e-9)
        state = unstack(together, run)
        torch.testing.assert_close(state["norm.running_mean"], model.norm.running_mean)
    select_runs(together, [2, 0])
    assert not together.get_parameter("shift").requires_grad
    together.eval()
    expected = single[2].eval()(images[0])
    torch.testing.assert_close(together(images[0])[0], expected, rtol=1e-9, atol=1e-9)


class Looking(Foreign):
    """Its forward pass depends on what it sees, which cannot be mapped."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if x.sum() > 0 else -x


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self.two.weight = self.one.weight


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (models.build("lstm"), r"LSTM holds a recurrent layer .* train one after another"),
        (Looking(), r"Looking cannot be mapped over the weights of many runs \(.*data-dependent"),
        (Tied(), r"Tied shares the weights two\.weight between layers"),
    ],
    ids=["recurrent", "looks at values", "tied"],
)
def test_what_trains_one_after_another_says_why(model: nn.Module, said: str) -> None:
    assert re.search(said, unsupported_model(model)), unsupported_model(model)
    with pytest.raises(UsageError, match=said):
        stack([model, model])


def test_bf16_and_layers_without_bias() -> None:
    single = [nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False)) for _ in range(2)]
    images = torch.randn(3, 3, 2, 2)
    together = stack(single)
    shared = torch.cat([images, images], 1)
    for run, model in enumerate(single):
        torch.testing.assert_close(together(shared)[run], model(images))
    net = models.build("lenet")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = stack([net, net])(torch.randn(2, 3, 32, 32))
    assert found.dtype is torch.bfloat16


def test_a_model_that_takes_no_images_is_asked_with_other_inputs():
    from gclip.training import RunConfig
    from gclip.training.fleet.train import unsupported

    def sequences(inputs, outputs):
        if len(inputs) != 2:
            raise UsageError("it takes sequences")
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs[0] * inputs[1], outputs))

    def nothing(inputs, outputs):
        raise UsageError("it takes text")

    models.register_model("fleet-sequences")(sequences)
    models.register_model("fleet-nothing")(nothing)
    assert unsupported(RunConfig(model="fleet-sequences")) == ""
    assert "takes inputs for which it is not known" in unsupported(RunConfig(model="fleet-nothing"))
