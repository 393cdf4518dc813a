"""What is trained on: all inputs and all targets as one tensor each, on one device."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gclip.errors import UsageError
from gclip.training import tensor_checks

SIZE = 32  # of the side of an image of digits and CIFAR-10, in pixels
_CLASSIC = (3, SIZE, SIZE)
_TENSORS = ("train_images", "train_labels", "test_images", "test_labels")
_BYTES = 3_072_000  # of images whose sums are made at once, at most (but those of one image)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Inputs and targets, on one device. `from_tensors` makes one of any tensors, and checks them.

    Attributes:
        name: the task they belong to.
        classes: the classes' names; a label is an index into them. Empty for a regression.
        train_images, test_images: images as uint8 of shape (N, C, H, W), whose channels lie side
            by side in memory (``channels_last``); or any other inputs as float32 of shape (N, …),
            which are neither normalised nor augmented.
        train_labels, test_labels: class labels as int64 of shape (N,), or the targets of a
            regression as float32 of shape (N,) or (N, k).
        digest: SHA-256 (hex) of classes, inputs and targets; found from them where not given.
        embedded: True if the images come with an installed package, so that the task's name alone
            says which they are.
        mean, std: of each channel of all training images, on the scale 0 to 1; found from them
            where not given. Empty where the inputs are no images.
    """

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    digest: str = ""
    embedded: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        tensor_checks.check_form({name: getattr(self, name) for name in _TENSORS}, self.classes)
        for name in ("train_images", "test_images"):
            inputs = getattr(self, name)
            laid_out = _pixels_together(inputs) if self.is_images else inputs.contiguous()
            object.__setattr__(self, name, laid_out)
        if not self.digest:
            object.__setattr__(self, "digest", digest(self))
        if self.is_images and not self.mean:
            mean, std = channel_statistics(self.train_images)
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)

    @classmethod
    def from_tensors(
        cls,
        train_inputs: Tensor | NDArray[Any],
        train_targets: Tensor | NDArray[Any],
        test_inputs: Tensor | NDArray[Any],
        test_targets: Tensor | NDArray[Any],
        *,
        name: str,
        classes: Sequence[str] | None = None,
    ) -> Dataset:
        """Data of any shape, checked and copied.

        Args:
            train_inputs, test_inputs: images as uint8 ``(N, C, H, W)``, of any size and number of
                channels; or anything else as float32 or float64 ``(N, …)``: features, sequences,
                images scaled already. float64 is rounded to float32.
            train_targets, test_targets: class labels as int64 or int32 ``(N,)``, from 0; int32
                becomes int64. Or the targets of a regression as float32 or float64, ``(N,)`` or
                ``(N, k)``; float64 is rounded to float32.
            name: the task that the data is for, as in `RunConfig.task`.
            classes: the classes' names, in the order of the labels; by default the labels as text,
                up to the highest in `train_targets`. A regression has none.

        Raises:
            UsageError: lengths, shapes or kinds that do not go together, a value that is not
                finite, or a label that is none of the classes.

        Example:
            >>> data = Dataset.from_tensors(
            ...     torch.zeros(8, 50, 2), torch.ones(8), torch.zeros(4, 50, 2), torch.ones(4),
            ...     name="adding",
            ... )
            >>> data.inputs, data.outputs, data.is_images, data.is_classification
            ((50, 2), 1, False, False)
        """
        if not isinstance(name, str) or not name:
            raise UsageError(f"the name of a data set must be text, but got {name!r}")
        tensors = {
            "train_inputs": tensor_checks.inputs("train_inputs", train_inputs),
            "train_targets": tensor_checks.targets("train_targets", train_targets),
            "test_inputs": tensor_checks.inputs("test_inputs", test_inputs),
            "test_targets": tensor_checks.targets("test_targets", test_targets),
        }
        names = tensor_checks.class_names(tensors, classes)
        tensor_checks.check_form(tensors, names)
        tensor_checks.check_values(tensors, names)
        fields: dict[str, Any] = dict(zip(_TENSORS, tensors.values(), strict=True))
        return cls(name=name, classes=names, **fields)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The shape of one example: ``(C, H, W)`` of an image."""
        return tuple(self.train_images.shape[1:])

    @property
    def outputs(self) -> int:
        """How many numbers a model says of one example: one a class, or one a target."""
        return len(self.classes) if self.is_classification else self.train_labels[0].numel()

    @property
    def is_images(self) -> bool:
        """Whether the inputs are images as bytes, which are normalised and may be augmented."""
        return self.train_images.dtype == torch.uint8

    @property
    def is_classification(self) -> bool:
        """Whether the targets are labels of classes."""
        return not self.train_labels.is_floating_point()

    @property
    def identity(self) -> str:
        """What `RunConfig.data` holds: 16 digits of the digest, "" for embedded images."""
        return "" if self.embedded else self.digest[:16]

    def named(self, name: str) -> Dataset:
        """The same data as that of the task `name`."""
        return self if name == self.name else dataclasses.replace(self, name=name)

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on another device (nothing is copied where it is there already)."""
        return dataclasses.replace(
            self, **{name: getattr(self, name).to(device) for name in _TENSORS}
        )


def digest(dataset: Dataset) -> str:
    """SHA-256 (hex) of the classes' names, all inputs (pixels in the order N, row, column, channel)
    and all targets; and of their kinds and shapes, but for images of 3×32×32 with labels.
    The same for the same data, wherever and however it is stored."""
    sha = hashlib.sha256(json.dumps(dataset.classes).encode())
    if not (dataset.is_images and dataset.inputs == _CLASSIC and dataset.is_classification):
        kinds = [dataset.train_images.dtype, dataset.train_labels.dtype]
        shapes = [dataset.inputs, dataset.train_labels.shape[1:]]
        sha.update(json.dumps([[str(each) for each in kinds], shapes]).encode())
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        sha.update(np.int64(len(images)).tobytes())
        for values in (images.permute(0, 2, 3, 1) if dataset.is_images else images, labels):
            array = values.cpu().contiguous().numpy()
            sha.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return sha.hexdigest()


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel on the scale 0 to 1, from exact sums of bytes.

    Args:
        images: uint8 of shape (N, C, H, W).
    """
    channels = images.shape[1]
    pixels = images.permute(0, 2, 3, 1).reshape(len(images), -1)
    total, square = np.zeros(channels, dtype=object), np.zeros(channels, dtype=object)
    # At most 1000 · 255² in a sum down the images: far inside 32 bits.
    rows = max(1, min(1000, _BYTES // pixels.shape[1]))
    for start in range(0, len(pixels), rows):
        values = pixels[start : start + rows].to(torch.int32)
        for sums, terms in ((total, values), (square, values * values)):
            down = terms.sum(0, dtype=torch.int32).view(-1, channels).sum(0, dtype=torch.int64)
            sums += np.array([int(value) for value in down], dtype=object)
    count = pixels.shape[0] * pixels.shape[1] // channels
    means = tuple(int(value) / count / 255 for value in total)
    deviations = []
    for first, second in zip(total, square, strict=True):
        # A channel that never varies must not divide by zero.
        spread = (count * int(second) - int(first) ** 2) / count**2
        deviations.append(math.sqrt(spread) / 255 if spread else 1.0)
    return means, tuple(deviations)


def _pixels_together(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
