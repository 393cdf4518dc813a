"""A stacked model computes, for every run, what that run's model computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.errors import UsageError
from gclip.training import models
from gclip.training.fleet import stacked_modules
from gclip.training.fleet.stack import select_runs, stack, unstack, unsupported_layer

RUNS, BATCH = 2, 3


def wide(model: nn.Module) -> nn.Module:
    """In float64, where the order of sums leaves no trace."""
    return model.double()


@pytest.mark.parametrize("shared", [True, False], ids=["one batch", "own batches"])
@pytest.mark.parametrize("name", models.names())
def test_values_and_gradients_are_those_of_each_model(name: str, shared: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    single = [wide(models.build(name, seed=seed)) for seed in range(RUNS)]
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
    import re

    with pytest.raises(UsageError) as error:
        stack([model])
    assert re.search(reason, str(error.value))
    assert unsupported_layer(model) == str(error.value)
    assert unsupported_layer(models.build("lenet")) == ""


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
