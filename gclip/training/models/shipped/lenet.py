"""LeNet, as in PyTorch's tutorial."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from gclip.errors import UsageError
from gclip.training.models.registry import register_model
from gclip.training.models.shapes import a_share, image_shape


class LeNet(nn.Module):
    """The classic tutorial net: conv 3-6 and 6-16 (5×5, pooled), then 400-120-84-classes.

    Of images that are not 32×32, 400 is what is left of them after the second pool.
    """

    def __init__(self, inputs: tuple[int, int, int], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        channels, *sizes = inputs
        height, width = (((size - 4) // 2 - 4) // 2 for size in sizes)
        if min(height, width) < 1:
            raise UsageError("its images are at least 16×16")
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(16 * height * width, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """The logits, ``(batch, outputs)``."""
        # Pooling before the ReLU gives the same values and gradients for a quarter of the work.
        x = F.relu_(F.max_pool2d(self.conv1(images), 2))
        x = F.relu_(F.max_pool2d(self.conv2(x), 2))
        x = self.dropout(F.relu_(self.fc1(self.flatten(x))))
        x = self.dropout(F.relu_(self.fc2(x)))
        return cast(Tensor, self.fc3(x))


@register_model("lenet")
def build(inputs: tuple[int, ...], outputs: int, *, dropout: float = 0.0) -> nn.Module:
    """LeNet (LeCun et al., 1998) as the tutorials have it; dropout after fc1 and fc2."""
    a_share(dropout=dropout)
    return LeNet(image_shape(inputs), outputs, dropout)
