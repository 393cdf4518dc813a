"""Layers of many runs at once: each holds the weights of all runs, stacked.

Activations go through convolutions, pools and batch norms as ``(batch, runs · channels, H, W)``,
the channels of a run side by side, and from `Flatten` or `SpatialMean` on as ``(runs, batch,
features)``. Where all runs are given the same images, ``(batch, channels, H, W)`` stands for all
of them until the first convolution.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.errors import UsageError
from gclip.training.models.layers import (
    FlattenExamples,
    ScaledConv2d,
    ScaledReLU,
    SkipGain,
    SpatialMean,
    standardized,
)

# From so many weights a run on, a CPU is slower at convolutions in groups than at one after another
# (4 runs, batch 4, forward and backward: 256-512 channels 108 against 78 ms, 512-512 152 against
# 84; 128-128 34 against 35; 6-16 0.5 against 0.9).
_MANY_WEIGHTS = 2**18


class StackedConv2d(nn.Module):
    """The convolutions of all runs as one: a group, or several, for each run."""

    def __init__(self, layer: nn.Conv2d, runs: int) -> None:
        super().__init__()
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise UsageError(f"a convolution with padding {layer.padding_mode} cannot be stacked")
        self.runs, self.groups, self.inputs = runs, layer.groups, layer.in_channels
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        self.weight = _stacked_parameter(layer.weight, runs)
        self.bias = None if layer.bias is None else _stacked_parameter(layer.bias, runs)

    def forward(self, x: Tensor) -> Tensor:
        """The activations of all runs, ``(batch, runs · channels, H, W)``."""
        weights = self._weights()
        if x.device.type == "cpu" and weights[0].numel() >= _MANY_WEIGHTS:
            return self._one_by_one(x, weights)
        groups = self.groups * self.runs
        if x.shape[1] == self.inputs and self.runs > 1:
            if self.groups == 1:
                groups = 1  # the same images for all: no copy of them is needed
            else:
                x = x.repeat(1, self.runs, 1, 1)
        weight = weights.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        bias = None if self.bias is None else self.bias.flatten()
        return F.conv2d(
            x, weight, bias, self.stride, cast(Any, self.padding), self.dilation, groups
        )

    def _weights(self) -> Tensor:
        """The filters that are used, ``(runs, out, in, kH, kW)``."""
        return self.weight

    def _one_by_one(self, x: Tensor, weights: Tensor) -> Tensor:
        """One convolution after another; so large are they that calling each costs nothing."""
        shared = x.shape[1] == self.inputs
        images = [x] * self.runs if shared else x.chunk(self.runs, 1)
        biases = [None] * self.runs if self.bias is None else self.bias.unbind()
        last = torch.channels_last
        each = [
            F.conv2d(
                own.contiguous(memory_format=last), weight.contiguous(memory_format=last), bias,
                self.stride, cast(Any, self.padding), self.dilation, self.groups,
            )
            for own, weight, bias in zip(images, weights.unbind(), biases, strict=True)
        ]  # fmt: skip
        return torch.cat(each, 1)


class StackedLinear(nn.Module):
    """The products of all runs as one batch of them: ``(runs, batch, in)`` to ``(…, out)``."""

    def __init__(self, layer: nn.Linear, runs: int) -> None:
        super().__init__()
        self.weight = _stacked_parameter(layer.weight, runs)
        bias: Tensor | None = layer.bias
        self.bias = None if bias is None else _stacked_parameter(bias, runs)

    def forward(self, x: Tensor) -> Tensor:
        """The products, ``(runs, batch, out)``."""
        if self.bias is None:
            return torch.bmm(x, self.weight.transpose(1, 2))
        if torch.is_autocast_enabled(x.device.type):
            return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))
        return cast(Tensor, _Product.apply(x, self.weight, self.bias))


class _Product(torch.autograd.Function):
    """x Wᵀ + b for all runs. torch's own derivative of it lays the weights' gradient out across,
    and copying it into place takes as long as the products do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor, Tensor]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        before = torch.bmm(grad, weight) if ctx.needs_input_grad[0] else None
        return before, torch.bmm(grad.transpose(1, 2), x), grad.sum(1)


class StackedBatchNorm2d(nn.Module):
    """Batch norm over ``runs · channels`` channels: no run's statistics meet another's."""

    def __init__(self, layer: nn.BatchNorm2d, runs: int) -> None:
        super().__init__()
        if layer.momentum is None:
            raise UsageError("a batch norm with momentum=None cannot be stacked")
        self.momentum, self.eps = layer.momentum, layer.eps
        self._by_batch = layer.running_mean is None
        self.weight = _stacked_parameter(layer.weight, runs) if layer.affine else None
        self.bias = _stacked_parameter(layer.bias, runs) if layer.affine else None
        for name in ("running_mean", "running_var"):
            own = getattr(layer, name)
            self.register_buffer(name, None if own is None else _repeat(own, runs))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised activations, of the shape of `x`."""
        mean, var = (cast(Any, self).running_mean, cast(Any, self).running_var)
        return F.batch_norm(
            x,
            None if mean is None else mean.view(-1),
            None if var is None else var.view(-1),
            None if self.weight is None else self.weight.flatten(),
            None if self.bias is None else self.bias.flatten(),
            self.training or self._by_batch,
            self.momentum,
            self.eps,
        )


class StackedFlatten(nn.Module):
    """``(batch, runs · channels, …)`` to ``(runs, batch, channels · …)``."""

    def __init__(self, layer: nn.Flatten, runs: int) -> None:
        super().__init__()
        if (layer.start_dim, layer.end_dim) != (1, -1):
            raise UsageError(f"{layer} cannot be stacked: only Flatten(1)")
        self.runs = runs

    def forward(self, x: Tensor) -> Tensor:
        """The features, ``(runs, batch, channels · …)``."""
        return _apart(x, self.runs).flatten(2)


class StackedFlattenExamples(nn.Module):
    """Examples ``(batch, *inputs)`` for all runs, or ``(batch, runs · inputs[0], …)``, those of a
    run side by side, to ``(runs, batch, features)``."""

    def __init__(self, layer: FlattenExamples, runs: int) -> None:
        super().__init__()
        self.runs, self.inputs = runs, layer.inputs

    def forward(self, x: Tensor) -> Tensor:
        """The features, ``(runs, batch, features)``."""
        if x.shape[1] == self.inputs[0]:
            return x.flatten(1).expand(self.runs, -1, -1)
        return _apart(x, self.runs).flatten(2)


class StackedScaledConv2d(StackedConv2d):
    """The convolutions of all runs, with each run's weights standardised."""

    def __init__(self, layer: ScaledConv2d, runs: int) -> None:
        super().__init__(layer, runs)
        self.gain = _stacked_parameter(layer.gain, runs)

    def _weights(self) -> Tensor:
        return standardized(self.weight, self.gain)


class StackedSkipGain(nn.Module):
    """Every run's factor on its own channels of ``(batch, runs · channels, H, W)``."""

    def __init__(self, layer: SkipGain, runs: int) -> None:
        super().__init__()
        self.gain = _stacked_parameter(layer.gain, runs)

    def forward(self, x: Tensor) -> Tensor:
        """The products, of the shape of `x`."""
        each = self.gain.repeat_interleave(x.shape[1] // len(self.gain))
        return x * each.view(-1, 1, 1)


class StackedSpatialMean(nn.Module):
    """``(batch, runs · channels, H, W)`` to ``(runs, batch, channels)``."""

    def __init__(self, _: SpatialMean, runs: int) -> None:
        super().__init__()
        self.runs = runs

    def forward(self, x: Tensor) -> Tensor:
        """The means, ``(runs, batch, channels)``."""
        means = x.mean((2, 3))
        return means.view(len(means), self.runs, -1).transpose(0, 1)


STACKED: dict[type[nn.Module], Any] = {
    nn.Conv2d: StackedConv2d,
    nn.Linear: StackedLinear,
    nn.BatchNorm2d: StackedBatchNorm2d,
    nn.Flatten: StackedFlatten,
    FlattenExamples: StackedFlattenExamples,
    ScaledConv2d: StackedScaledConv2d,
    SkipGain: StackedSkipGain,
    SpatialMean: StackedSpatialMean,
}
"""How each kind of layer is stacked."""

RUN_INDEPENDENT = (
    *(nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Identity, nn.GELU, nn.Tanh, nn.SiLU),
    ScaledReLU,
)
"""Layers that work on each number or channel by itself."""


def _apart(x: Tensor, runs: int) -> Tensor:
    """``(batch, runs · channels, …)`` as ``(runs, batch, channels, …)``."""
    return x.unflatten(1, (runs, -1)).transpose(0, 1)


def _repeat(value: Tensor, runs: int) -> Tensor:
    return value.detach().expand(runs, *value.shape).clone()


def _stacked_parameter(value: Tensor, runs: int) -> nn.Parameter:
    return nn.Parameter(_repeat(value, runs), value.requires_grad)
