"""ResNet-9: the residual net of the fast CIFAR-10 trainings."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gclip.errors import UsageError
from gclip.training.models.layers import conv3, dropout_layers
from gclip.training.models.registry import register_model
from gclip.training.models.shapes import a_share, image_shape


class ConvBlock(nn.Sequential):
    """3×3 convolution, batch norm, ReLU, and a 2×2 pool where asked for."""

    def __init__(self, inputs: int, outputs: int, pool: bool = False) -> None:
        layers: list[nn.Module] = [
            conv3(inputs, outputs),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
        super().__init__(*layers, *([nn.MaxPool2d(2)] if pool else []))


class Residual(nn.Module):
    """x + two convolution blocks of x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvBlock(width, width), ConvBlock(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """The sum, of the shape of `x`."""
        return x + cast(Tensor, self.body(x))


@register_model("resnet9")
def build(inputs: tuple[int, ...], outputs: int, *, dropout: float = 0.0) -> nn.Module:
    """The nine-layer residual net of the fast CIFAR-10 trainings (Page, 2018).

    The last pool takes what the others leave of an image; dropout comes before the last layer.
    """
    a_share(dropout=dropout)
    channels, height, width = image_shape(inputs)
    if min(height, width) < 8:
        raise UsageError("its images are at least 8×8")
    left = height // 8, width // 8
    return nn.Sequential(
        ConvBlock(channels, 64),
        ConvBlock(64, 128, pool=True),
        Residual(128),
        ConvBlock(128, 256, pool=True),
        ConvBlock(256, 512, pool=True),
        Residual(512),
        nn.MaxPool2d(left),
        nn.Flatten(),
        *dropout_layers(dropout),
        nn.Linear(512, outputs),
    )
