"""The embedded task: scikit-learn's 1,797 handwritten digits, enlarged to 32×32."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gclip.training.dataset import SIZE, Dataset


def load() -> Dataset:
    """The digits: 1,442 training and 355 test images; the same bytes on every machine.

    Of each class every fifth image is a test image.
    """
    rows = torch.from_numpy(table())
    images = enlarge(rows[:, :-1].view(-1, 8, 8))
    labels = rows[:, -1].clone()
    test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        test[(labels == label).nonzero().flatten()[4::5]] = True
    return Dataset(
        name="digits",
        classes=tuple("0123456789"),
        train_images=images[~test],
        train_labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        embedded=True,
    )


def table() -> NDArray[np.int64]:
    """(1797, 65) int64: the 64 pixels of each image, and its label."""
    # scikit-learn's own file, read without importing scikit-learn: that takes seconds, and every
    # worker would wait for it.
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            with gzip.open(file, "rt", encoding="ascii") as lines:
                return np.loadtxt(lines, delimiter=",", dtype=np.int64)
    from sklearn.datasets import load_digits

    raw = load_digits()
    return np.column_stack([raw.data, raw.target]).astype(np.int64)


def enlarge(images: Tensor) -> Tensor:
    """(N, 8, 8) whole numbers 0 to 16 → uint8 (N, 3, 32, 32) from 0 to 255, bilinearly.

    In whole numbers throughout, so that no rounding differs between machines.
    """
    size, scale = images.shape[-1], SIZE // images.shape[-1]
    weights = torch.zeros(SIZE, size, dtype=torch.int64)  # in units of 1 / (2 · scale)
    for out in range(SIZE):
        position = 2 * out + 1 - scale  # twice the scaled position of this pixel's centre
        low, share = divmod(position, 2 * scale)
        for index, weight in ((low, 2 * scale - share), (low + 1, share)):
            weights[out, min(max(index, 0), size - 1)] += weight
    sums = weights @ images @ weights.T
    unit = 16 * (2 * scale) ** 2
    grey = (2 * 255 * sums + unit) // (2 * unit)
    return grey.to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
