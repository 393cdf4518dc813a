"""A small residual net without normalisation, for which adaptive gradient clipping was made."""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn

from gclip.training.models.layers import ScaledConv2d, ScaledReLU, SkipGain, SpatialMean
from gclip.training.models.registry import register_model
from gclip.training.models.shapes import a_share, above_zero, at_least, image_shape


class Block(nn.Module):
    """x + α · f(x / β), where β is the deviation that x has at the start."""

    def __init__(self, inputs: int, outputs: int, stride: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.activation = ScaledReLU()
        self.conv1 = ScaledConv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.conv2 = ScaledConv2d(outputs, outputs, 3, padding=1)
        self.skip_gain = SkipGain()
        # Where the shape changes, the shortcut starts from the normalised activation.
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.shortcut: ScaledConv2d | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = ScaledConv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The activations, ``(batch, outputs, H / stride, W / stride)``."""
        out = self.activation(x / self.beta)
        if self.shortcut is not None:
            x = self.shortcut(self.pool(out))
        out = self.conv2(self.activation(self.conv1(out)))
        return x + cast(Tensor, self.skip_gain(out)) * self.alpha


class NFNet(nn.Module):
    """A 3×3 stem, three stages of blocks at 1, 1/2 and 1/4 of the size, the mean, and a head."""

    def __init__(
        self, channels: int, outputs: int, width: int, blocks: int, alpha: float, dropout: float
    ) -> None:
        super().__init__()
        self.stem = ScaledConv2d(channels, width, 3, padding=1)
        stages: list[nn.Module] = []
        inputs, variance = width, 1.0
        for stage in range(3):
            outs = width * 2**stage
            for place in range(blocks):
                stride = 2 if stage and not place else 1
                stages.append(Block(inputs, outs, stride, alpha, math.sqrt(variance)))
                changed = stride != 1 or inputs != outs
                variance = (1.0 if changed else variance) + alpha**2
                inputs = outs
        self.blocks = nn.Sequential(*stages)
        self.activation = ScaledReLU()
        self.mean = SpatialMean()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(inputs, outputs)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """The logits, ``(batch, outputs)``."""
        x = self.mean(self.activation(self.blocks(self.stem(images))))
        return cast(Tensor, self.fc(self.dropout(x)))


@register_model("nfnet")
def build(
    inputs: tuple[int, ...],
    outputs: int,
    *,
    width: int = 32,
    blocks: int = 1,
    alpha: float = 0.2,
    dropout: float = 0.0,
) -> nn.Module:
    """A small normaliser-free residual net, after Brock, De, Smith, Simonyan (2021),
    arXiv:2102.06171, where adaptive gradient clipping (agc) stands in for batch norm.

    Convolutions with scaled weight standardisation, residual branches scaled by `alpha` and by the
    deviation expected at their input, and a gain on each that starts at 0. Three stages of `blocks`
    blocks, `width`, twice and four times as wide: 309,000 weights. Dropout before the head.
    """
    at_least(1, width=width, blocks=blocks)
    above_zero(alpha=alpha)
    a_share(dropout=dropout)
    return NFNet(image_shape(inputs)[0], outputs, width, blocks, alpha, dropout)
