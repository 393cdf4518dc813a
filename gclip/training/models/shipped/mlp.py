"""A multi-layer perceptron."""

from __future__ import annotations

from torch import nn

from gclip.training.models.layers import FlattenExamples, dropout_layers
from gclip.training.models.registry import register_model
from gclip.training.models.shapes import a_share, at_least


@register_model("mlp")
def build(
    inputs: tuple[int, ...],
    outputs: int,
    *,
    width: int = 128,
    depth: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """Linear layers with ReLU between, of anything, flattened; torch's initialisation.

    `depth` hidden layers of `width` units, each followed by dropout where asked for.
    """
    at_least(1, width=width)
    at_least(0, depth=depth)
    a_share(dropout=dropout)
    flatten = FlattenExamples(inputs)
    layers: list[nn.Module] = [flatten]
    features = flatten.features
    for _ in range(depth):
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True), *dropout_layers(dropout)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, outputs))
