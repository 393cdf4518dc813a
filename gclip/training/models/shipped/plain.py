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
    gain: float = 1.0,
) -> nn.Module:
    """`depth` layers with ReLU between, the last of them the head: no norms, no shortcuts.

    3×3 convolutions for images, halved after a third and after two thirds of them; for anything
    else linear layers.
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
    pools = {round(depth / 3), round(2 * depth / 3)}
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
