"""The networks that are trained: `lenet`, `resnet9` and `resnet18`, for images of 3×32×32.

A model's weights depend on its name, the number of classes and the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.errors import choose
from gclip.training.seeds import derive


class SpatialMean(nn.Module):
    """The mean of each channel: (batch, channels, H, W) to (batch, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """The means, ``(batch, channels)``."""
        return x.mean((2, 3))


class LeNet(nn.Module):
    """The classic tutorial net: conv 3-6 and 6-16 (5×5, pooled), then 400-120-84-classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits, ``(batch, classes)``."""
        # Pooling before the ReLU gives the same values and gradients for a quarter of the work.
        x = F.relu_(F.max_pool2d(self.conv1(images), 2))
        x = F.relu_(F.max_pool2d(self.conv2(x), 2))
        x = F.relu_(self.fc1(self.flatten(x)))
        x = F.relu_(self.fc2(x))
        return cast(Tensor, self.fc3(x))


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class ConvBlock(nn.Sequential):
    """3×3 convolution, batch norm, ReLU, and a 2×2 pool where asked for."""

    def __init__(self, inputs: int, outputs: int, pool: bool = False) -> None:
        layers: list[nn.Module] = [
            _conv3(inputs, outputs),
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


class ResNet9(nn.Sequential):
    """The nine-layer residual net of the fast CIFAR-10 trainings (Page, 2018)."""

    def __init__(self, classes: int) -> None:
        super().__init__(
            ConvBlock(3, 64),
            ConvBlock(64, 128, pool=True),
            Residual(128),
            ConvBlock(128, 256, pool=True),
            ConvBlock(256, 512, pool=True),
            Residual(512),
            nn.MaxPool2d(4),
            nn.Flatten(),
            nn.Linear(512, classes),
        )


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He et al., 2016); names as in torchvision."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The activations, ``(batch, outputs, H / stride, W / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu_(out + shortcut)


class ResNet18(nn.Module):
    """ResNet-18 with the stem for small images: one 3×3 convolution, no pool."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = _conv3(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._stage(64, 64, 1)
        self.layer2 = self._stage(64, 128, 2)
        self.layer3 = self._stage(128, 256, 2)
        self.layer4 = self._stage(256, 512, 2)
        self.mean = SpatialMean()
        self.fc = nn.Linear(512, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))

    def forward(self, images: Tensor) -> Tensor:
        """The logits, ``(batch, classes)``."""
        x = F.relu_(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return cast(Tensor, self.fc(self.mean(x)))


_MODELS: dict[str, Callable[[int], nn.Module]] = {
    "lenet": LeNet,
    "resnet9": ResNet9,
    "resnet18": ResNet18,
}


def names() -> tuple[str, ...]:
    """The models that `build` knows."""
    return tuple(_MODELS)


def build(name: str, classes: int = 10, seed: int = 0) -> nn.Module:
    """The model `name` on the CPU in float32; logits are (batch, classes).

    The caller's random state is left as it was.

    Raises:
        UsageError: an unknown name.
    """
    maker = _MODELS[choose(name, names(), "model")]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        return maker(classes)
