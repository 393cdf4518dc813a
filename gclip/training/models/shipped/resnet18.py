"""ResNet-18 for small images."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from gclip.training.models.layers import SpatialMean, conv3
from gclip.training.models.registry import register_model
from gclip.training.models.shapes import a_share, image_shape


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He et al., 2016); names as in torchvision."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3(outputs, outputs)
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

    def __init__(self, channels: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = conv3(channels, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._stage(64, 64, 1)
        self.layer2 = self._stage(64, 128, 2)
        self.layer3 = self._stage(128, 256, 2)
        self.layer4 = self._stage(256, 512, 2)
        self.mean = SpatialMean()
        self.fc = nn.Linear(512, outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))

    def forward(self, images: Tensor) -> Tensor:
        """The logits, ``(batch, outputs)``."""
        x = F.relu_(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return cast(Tensor, self.fc(self.dropout(self.mean(x))))


@register_model("resnet18")
def build(inputs: tuple[int, ...], outputs: int, *, dropout: float = 0.0) -> nn.Module:
    """ResNet-18 (He et al., 2016) with the stem for small images; dropout before the last layer."""
    a_share(dropout=dropout)
    return ResNet18(image_shape(inputs)[0], outputs, dropout)
