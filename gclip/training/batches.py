"""Batches as tensor operations: gather, flip, crop and normalise, with no Python per image.

Everything random about an epoch (order, flips, crops) is drawn at its start, on the CPU: so the
batches depend on the seed alone, not on the device or on how many images are prepared at a time.

Images lie in memory as rows of pixels, (N, H, W, C). So gathering one of 3×32×32 is one copy of
3,072 bytes, a crop is 32 copies of 96, and normalising is one long multiply-add. Inputs that are no
images are gathered only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PAD = 4  # pixels of black around an image, before a crop of its old size is taken
EVALUATION_BATCH = 500
"""Examples in a forward pass without gradients, at most; of images larger than 3×32×32 fewer."""
_CHUNK = 128 * 3072  # bytes prepared at a time: few enough to stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Bytes to numbers: byte · scale + shift, for all bytes of an image in memory."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(
        cls,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        size: int | tuple[int, int],
        device: torch.device | str = "cpu",
    ) -> Normalizer:
        """(x − mean) / std for each channel, where x is the byte / 255.

        Args:
            mean, std: of each channel, on the scale 0 to 1.
            size: of an image in pixels: height and width, or one number for both.
            device: of the images.
        """
        means = torch.tensor(mean, dtype=torch.float64)
        stds = torch.tensor(std, dtype=torch.float64)
        scale, shift = 1 / (255 * stds), -means / stds
        pixels = math.prod(size) if isinstance(size, tuple) else size * size
        return cls(scale.float().repeat(pixels).to(device), shift.float().repeat(pixels).to(device))


@dataclass(frozen=True, eq=False)
class Epoch:
    """What chance decided about one epoch, on the device of the inputs.

    Attributes:
        order: (N,) indices of the examples, as they come.
        flips: (N,) 1 where an image is mirrored, else 0; None without augmentation.
        rows, columns: (N,) where its crop begins in the padded image, 0 to 2 · `PAD`.
    """

    order: Tensor
    flips: Tensor | None = None
    rows: Tensor | None = None
    columns: Tensor | None = None

    @classmethod
    def draw(
        cls,
        count: int,
        order: torch.Generator,
        augmentation: torch.Generator | None,
        device: torch.device | str = "cpu",
    ) -> Epoch:
        """Draw an epoch.

        Args:
            count: how many images there are.
            order: draws their order.
            augmentation: draws flips and crops; None for neither.
            device: of the images.
        """
        indices = torch.randperm(count, generator=order).to(device)
        if augmentation is None:
            return cls(indices)
        draw = (
            torch.randint(high, (count,), generator=augmentation).to(device)
            for high in (2, 2 * PAD + 1, 2 * PAD + 1)
        )
        return cls(indices, *draw)

    @classmethod
    def in_order(cls, count: int, device: torch.device | str = "cpu") -> Epoch:
        """All images as they are, one after another: for measuring."""
        return cls(torch.arange(count, device=device))

    def at(self, places: Tensor | slice) -> Epoch:
        """Some of it: the examples that come at `places`, with their flips and crops."""
        if isinstance(places, Tensor):
            places = places.to(self.order.device)
        every = (self.order, self.flips, self.rows, self.columns)
        return Epoch(*(None if each is None else each[places] for each in every))  # type: ignore[arg-type]


def batches(
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    epoch: Epoch,
    normalizer: Normalizer | None,
    memory_format: torch.memory_format = torch.channels_last,
    first: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (inputs, targets): images normalised, as float32 (batch, C, H, W), or inputs as they
    are, and what `labels` has of them.

    Args:
        images: uint8 (N, C, H, W), the channels of a pixel side by side (``channels_last``); or
            float32 (N, …).
        labels: int64 (N,), or targets (N, …).
        batch_size: the last batch of the epoch may be smaller.
        epoch: which examples in which order, and how images are flipped and cropped.
        normalizer: made for images of this size; None for inputs that are no images.
        memory_format: of the inputs yielded, where they have the four dimensions of images.
        first: how many batches to leave out at the beginning.
    """
    if normalizer is None:
        yield from _gathered(images, labels, batch_size, epoch, memory_format, first)
        return
    _, channels, height, width = images.shape
    flat = images.permute(0, 2, 3, 1).reshape(len(images), -1)
    count = len(epoch.order)
    chunk = max(1, _CHUNK // (batch_size * flat.shape[1])) * batch_size
    done = first * batch_size
    for start in range(done - done % chunk, count, chunk):
        part = slice(start, min(start + chunk, count))
        chosen = epoch.order[part]
        pixels = flat.index_select(0, chosen).view(-1, height, width, channels)
        if epoch.flips is not None and epoch.rows is not None and epoch.columns is not None:
            pixels = _flip(pixels, epoch.flips[part])
            pixels = _crop(pixels, epoch.rows[part], epoch.columns[part])
        ready = pixels.view(len(chosen), -1).float().mul_(normalizer.scale).add_(normalizer.shift)
        ready = ready.view(-1, height, width, channels).permute(0, 3, 1, 2)
        ready = ready.contiguous(memory_format=memory_format)
        answers = labels.index_select(0, chosen)
        for begin in range(max(0, done - start), len(chosen), batch_size):
            yield ready[begin : begin + batch_size], answers[begin : begin + batch_size]


def _gathered(
    inputs: Tensor,
    targets: Tensor,
    batch_size: int,
    epoch: Epoch,
    memory_format: torch.memory_format,
    first: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    for chosen in torch.split(epoch.order, batch_size)[first:]:
        ready = inputs.index_select(0, chosen)
        if ready.ndim == 4:
            ready = ready.contiguous(memory_format=memory_format)
        yield ready, targets.index_select(0, chosen)


def _flip(pixels: Tensor, flips: Tensor) -> Tensor:
    """Mirror the images (n, H, W, C) where `flips` is 1, left to right."""
    count = len(pixels)
    both = torch.cat([pixels, pixels.flip(2)]).view(2 * count, -1)
    # Mirroring all and copying those wanted is four times faster than choosing byte by byte.
    wanted = torch.arange(count, device=pixels.device) + count * flips
    return both.index_select(0, wanted).view_as(pixels)


def _crop(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Cut (n, H, W, C) out of the images padded with black, from each one's own row and column.

    A crop is a window on the padded bytes: H rows of W · C bytes, a padded row apart. Windows
    begin anywhere, so one overlapping view has them all, and a gather on it copies those chosen.
    """
    count, height, width, channels = pixels.shape
    padded = F.pad(pixels, (0, 0, PAD, PAD, PAD, PAD))
    row = (width + 2 * PAD) * channels
    image = (height + 2 * PAD) * row
    window = (height - 1) * row + width * channels
    windows = padded.as_strided((count * image - window + 1, height, width * channels), (1, row, 1))
    first = torch.arange(count, device=pixels.device) * image + rows * row + columns * channels
    return windows.index_select(0, first).view(count, height, width, channels)
