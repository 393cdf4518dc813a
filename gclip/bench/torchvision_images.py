"""Images as torchvision's users load them: from files, or from an array in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gclip.training.dataset import SIZE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def image_folder(folder: Path, augment: bool = False) -> Any:
    """torchvision's `ImageFolder` of the training images."""
    from torchvision.datasets import ImageFolder

    return ImageFolder(str(folder / "train"), _transform(augment))


class ArrayImages(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Decoded images under torchvision's transforms, as torchvision's CIFAR10 has them: an array,
    of which each image becomes Pillow's as it is taken.

    Args:
        images: uint8 ``(count, height, width, 3)``.
        labels: of the images.
        augment: whether to crop and to flip at random.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: Sequence[int], augment: bool = False
    ) -> None:
        self._images, self._labels = images, labels
        self._transform = _transform(augment)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


def _transform(augment: bool) -> Any:
    from torchvision import transforms

    steps = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    if augment:
        steps = [transforms.RandomCrop(SIZE, 4), transforms.RandomHorizontalFlip(), *steps]
    return transforms.Compose(steps)
