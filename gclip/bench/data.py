"""What do batches cost? Ours beside torchvision's ImageFolder in a DataLoader with two workers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gclip.errors import UsageError
from gclip.training import Dataset, Epoch, Normalizer, batches, load_dataset
from gclip.training.dataset import SIZE
from gclip.training.device import reproducible
from gclip.training.folders import is_class_folders

_PEER = "torchvision ImageFolder + DataLoader(num_workers=2)"
_REPEATS = 3

Batches = Iterator[tuple[Tensor, Tensor]]


CASES = (
    ("LeNet batch 128, flip and crop", 128, True),
    ("LeNet batch 128", 128, False),
    ("LeNet batch 4", 4, False),
)


def rows(folder: Path, progress: Callable[[str], None] = lambda what: None) -> list[dict[str, Any]]:
    """Time per batch of normalised images, as ``case, peer, speedup, ours_ms, peer_ms``.

    Args:
        folder: class folders of images: ``train/<class>/<image>`` and ``test/<class>/<image>``.
        progress: told what is measured next.

    Each number is a median over repeats in which both take turns. Neither reads anything for the
    first time in them: ours has its images decoded, the peer its workers started and files read.
    Ours computes on one thread.

    Raises:
        UsageError: `folder` has no class folders, or too few images.
    """
    if not is_class_folders(folder):
        raise UsageError(f"{folder} has no train/<class>/<image> and test/<class>/<image>")
    dataset = load_dataset("cifar10", folder)
    found = []
    for case in CASES:
        progress(case[0])
        found.append(_row(folder, dataset, *case))
    return found


def _row(
    folder: Path, dataset: Dataset, case: str, batch_size: int, augment: bool
) -> dict[str, Any]:
    images = 3840 if len(dataset.train_labels) > 2 * 3840 else len(dataset.train_labels) // 2
    count = images // batch_size
    if count < 1:
        raise UsageError(f"{folder} has too few images for batches of {batch_size}")
    ours, peers = [], []
    for _ in range(_REPEATS):
        peers.append(_time_batch(lambda: _peer(folder, batch_size, augment), count))
        with reproducible(torch.device("cpu"), threads=1):  # as in a run
            ours.append(_time_batch(lambda: _ours(dataset, batch_size, augment), count))
    our_ms, peer_ms = 1e3 * statistics.median(ours), 1e3 * statistics.median(peers)
    return {
        "case": case,
        "peer": _PEER,
        "speedup": peer_ms / our_ms,
        "ours_ms": our_ms,
        "peer_ms": peer_ms,
    }


def _time_batch(start: Callable[[], Batches], count: int) -> float:
    """Seconds per batch over `count` batches, begun where the pipeline is under way."""
    stream = start()
    next(stream)  # the workers have started, and the first batch has come
    began = time.perf_counter()
    for _ in islice(stream, count):
        pass
    return (time.perf_counter() - began) / count


def _ours(dataset: Dataset, batch_size: int, augment: bool) -> Batches:
    chance = torch.Generator().manual_seed(0)
    normalizer = Normalizer.of(dataset.mean, dataset.std, SIZE)
    count = len(dataset.train_labels)
    epoch = Epoch.draw(count, chance, chance if augment else None)
    return batches(dataset.train_images, dataset.train_labels, batch_size, epoch, normalizer)


def _peer(folder: Path, batch_size: int, augment: bool) -> Batches:
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    if augment:
        steps = [transforms.RandomCrop(SIZE, 4), transforms.RandomHorizontalFlip(), *steps]
    images = ImageFolder(str(folder / "train"), transforms.Compose(steps))
    loader: DataLoader[Any] = DataLoader(images, batch_size, shuffle=True, num_workers=2)
    return iter(loader)
