"""Layers that several models are made of."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GAMMA = math.sqrt(2 / (1 - 1 / math.pi))
"""The ReLU of a standard normal number has the deviation 1 / γ."""


class SpatialMean(nn.Module):
    """The mean of each channel: (batch, channels, H, W) to (batch, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """The means, ``(batch, channels)``."""
        return x.mean((2, 3))


class FlattenExamples(nn.Module):
    """Examples of a known shape as they come: (batch, *inputs) to (batch, features).

    Knowing the shape, a fleet can tell examples that all runs share from those of each run.
    """

    def __init__(self, inputs: tuple[int, ...]) -> None:
        super().__init__()
        self.inputs, self.features = tuple(inputs), math.prod(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """The features, ``(batch, features)``."""
        return x.flatten(1)


class ScaledConv2d(nn.Conv2d):
    """A convolution with scaled weight standardisation (Brock et al., 2021, arXiv:2101.08692).

    Its weights are used with mean 0 and variance 1 / fan-in in every filter, times a gain for each
    filter that is learned. Where the activation before it has a variance, so has what it gives.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(inputs, outputs, size, stride=stride, padding=padding)
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        nn.init.zeros_(cast(Tensor, self.bias))
        self.gain = nn.Parameter(torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The activations, ``(batch, outputs, H, W)``."""
        weight = standardized(self.weight, self.gain)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)  # type: ignore[arg-type]


def standardized(weight: Tensor, gain: Tensor) -> Tensor:
    """Filters ``(…, outputs, inputs, kH, kW)`` with mean 0, and the deviation gain / √fan-in.

    Args:
        weight: the filters as they are learned.
        gain: ``(…, outputs)``.
    """
    var, mean = torch.var_mean(weight, (-3, -2, -1), correction=0, keepdim=True)
    fan_in = weight[0].numel() if weight.ndim == 4 else weight[0, 0].numel()
    scale = torch.rsqrt((var * fan_in).clamp(min=1e-4)) * gain[..., None, None, None]
    return (weight - mean) * scale


class ScaledReLU(nn.Module):
    """γ · ReLU(x), which has variance 1 where x is standard normal."""

    def forward(self, x: Tensor) -> Tensor:
        """The activations, of the shape of `x`."""
        return F.relu(x) * _GAMMA


class SkipGain(nn.Module):
    """A learned factor, 0 at first, so that a residual branch begins as nothing (SkipInit)."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The product, of the shape of `x`."""
        return x * self.gain


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3×3 convolution without bias, which keeps the size of an image at stride 1."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def dropout_layers(share: float) -> list[nn.Module]:
    """A dropout layer, or none where nothing is to be dropped."""
    return [nn.Dropout(share)] if share else []


def draws_chance(model: nn.Module) -> bool:
    """Whether a model draws random numbers as it trains: for dropout, of torch's kinds."""
    for module in model.modules():
        share = getattr(module, "p", 0.0) if isinstance(module, _DROPOUTS) else 0.0
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            share = module.dropout
        if share:
            return True
    return False


_DROPOUTS = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
