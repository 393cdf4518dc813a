"""What is trained on: all images as one tensor of bytes, on one device."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gclip.errors import UsageError

SIZE = 32  # of an image's side, in pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Images and labels, on one device.

    Attributes:
        name: the task they belong to.
        classes: the classes' names; a label is an index into them.
        train_images, test_images: uint8 of shape (N, 3, 32, 32). The three channels of a pixel lie
            side by side in memory (``channels_last``).
        train_labels, test_labels: int64 of shape (N,).
        digest: SHA-256 (hex) of classes, pixels and labels; found from them where not given.
        embedded: True if the images come with an installed package, so that the task's name alone
            says which they are.
        mean, std: of each channel of all training images, on the scale 0 to 1; found from them
            where not given.
    """

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    digest: str = ""
    embedded: bool = False
    mean: tuple[float, float, float] = field(default=(math.nan,) * 3)
    std: tuple[float, float, float] = field(default=(math.nan,) * 3)

    def __post_init__(self) -> None:
        for name in ("train_images", "test_images"):
            images = _pixels_together(name, getattr(self, name))
            object.__setattr__(self, name, images)
        if not self.digest:
            object.__setattr__(self, "digest", digest(self))
        if math.isnan(self.mean[0]):
            mean, std = channel_statistics(self.train_images)
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)

    @property
    def identity(self) -> str:
        """What `RunConfig.data` holds: 16 digits of the digest, "" for embedded images."""
        return "" if self.embedded else self.digest[:16]

    def named(self, name: str) -> Dataset:
        """The same data as that of the task `name`."""
        return self if name == self.name else dataclasses.replace(self, name=name)

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on another device (nothing is copied where it is there already)."""
        names = ("train_images", "train_labels", "test_images", "test_labels")
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in names})


def digest(dataset: Dataset) -> str:
    """SHA-256 (hex) of the classes' names, all pixels in the order (N, row, column, channel)
    and all labels. The same for the same images, wherever and however they are stored."""
    sha = hashlib.sha256(json.dumps(dataset.classes).encode())
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        sha.update(np.int64(len(images)).tobytes())
        sha.update(images.cpu().permute(0, 2, 3, 1).contiguous().numpy().data)
        sha.update(labels.cpu().numpy().astype("<i8").data)
    return sha.hexdigest()


def channel_statistics(
    images: Tensor,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of each channel on the scale 0 to 1, from exact sums of bytes."""
    pixels = images.permute(0, 2, 3, 1).reshape(len(images), -1)
    total, square = np.zeros(3, dtype=object), np.zeros(3, dtype=object)
    for start in range(0, len(pixels), 1000):
        values = pixels[start : start + 1000].to(torch.int32)
        # At most 1000 · 255² in a sum down the images: far inside 32 bits.
        for sums, terms in ((total, values), (square, values * values)):
            down = terms.sum(0, dtype=torch.int32).view(-1, 3).sum(0, dtype=torch.int64)
            sums += np.array([int(value) for value in down], dtype=object)
    count = pixels.shape[0] * pixels.shape[1] // 3
    means = [int(value) / count / 255 for value in total]
    deviations = []
    for first, second in zip(total, square, strict=True):
        # A channel that never varies must not divide by zero.
        spread = (count * int(second) - int(first) ** 2) / count**2
        deviations.append(math.sqrt(spread) / 255 if spread else 1.0)
    return (means[0], means[1], means[2]), (deviations[0], deviations[1], deviations[2])


def _pixels_together(name: str, images: Tensor) -> Tensor:
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (3, SIZE, SIZE):
        raise UsageError(
            f"{name} must be bytes of shape (N, 3, {SIZE}, {SIZE}), but got {images.dtype} of "
            f"shape {tuple(images.shape)}"
        )
    return images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
