"""A deep net without normalisation and without shortcuts."""

from __future__ import annotations

import math

from torch import nn

from gclip.training.models.layers import FlattenExamples, SpatialMean
from gclip.training.models.registry import register_model
from gclip.training.models.shapes import above_zero, at_least


@register_model("plain")
def build(
    inputs: tuple[int, ...],
    outputs: int,
    *,
    depth: int = 20,
    width: int = 16,
    gain: float = 1.2,
) -> nn.Module:
    """`depth` layers with ReLU between, the last of them the head, without norms or shortcuts.

    3×3 convolutions for images, which are halved after the first, a third and two thirds of the
    layers; for anything else linear layers. Weights are He's (2015) times `gain`, biases 0.

    A gain off 1 is one to the power of `depth` at the far end: gradients explode or vanish. The
    norm of all gradients at the start, on 128 digits (median and range of 8 seeds): 320 (59 to
    1,160) with the default gain, at a loss of 21; 3.1 (0.25 to 21) with ``gain=1``; 22,000 (4,400
    to 80,000) with ``gain=1.5``; and 0.012 with ``gain=0.41``, which is what torch's own
    initialisation comes to, where nothing of the image reaches the head.
    """
    at_least(2, depth=depth)
    at_least(1, width=width)
    above_zero(gain=gain)
    layers = _convolutions(inputs, depth, width) if len(inputs) == 3 else []
    layers = layers or _products(inputs, depth, width)
    layers.append(nn.Linear(width, outputs))
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=gain * math.sqrt(2 / fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def _convolutions(inputs: tuple[int, ...], depth: int, width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels, size = inputs[0], min(inputs[1:])
    pools = {1, round(depth / 3), round(2 * depth / 3)}
    for place in range(1, depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        channels = width
        if place in pools and size >= 2:
            layers.append(nn.MaxPool2d(2))
            size //= 2
    return [*layers, SpatialMean()]


def _products(inputs: tuple[int, ...], depth: int, width: int) -> list[nn.Module]:
    flatten = FlattenExamples(inputs)
    layers: list[nn.Module] = [flatten]
    features = flatten.features
    for _ in range(1, depth):
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True)]
        features = width
    return layers
