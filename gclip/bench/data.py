"""What do batches cost? Ours beside torchvision's transforms in a DataLoader with two workers.

Like beside like: once both read and decode the files, as in a first epoch, and once both have the
decoded images in memory, as ours has in all later ones. (`ImageFolder` decodes in every epoch.)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gclip.bench.torchvision_images import ArrayImages, image_folder
from gclip.errors import UsageError
from gclip.training import Dataset, Epoch, Normalizer, batches, load_dataset
from gclip.training.dataset import SIZE
from gclip.training.device import reproducible
from gclip.training.folders import is_class_folders
from gclip.training.image_listing import list_images
from gclip.training.images import decode

_LOADER = "DataLoader(num_workers=2)"
_REPEATS = 3

Batches = Iterator[tuple[Tensor, Tensor]]


CASES = (
    ("LeNet batch 128, flip and crop", 128, True),
    ("LeNet batch 128", 128, False),
    ("LeNet batch 4", 4, False),
)


def rows(folder: Path, progress: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """Time per batch of normalised images, as ``case, peer, speedup, ours_ms, peer_ms``.

    Two rows a case: ``files`` reads and decodes the images on both sides, ``memory`` on neither.
    Each number is a median over repeats in which both take turns; the peer's workers have started
    before. Our batches are made on one thread, our files decoded on all cores.

    Args:
        folder: class folders of images: ``train/<class>/<image>`` and ``test/<class>/<image>``.
        progress: told what is measured next.

    Raises:
        UsageError: `folder` has no class folders, or too few images.
    """
    if not is_class_folders(folder):
        raise UsageError(f"{folder} has no train/<class>/<image> and test/<class>/<image>")
    dataset = load_dataset("cifar10", folder)
    measured = []
    for case in CASES:
        progress(case[0])
        measured += [_row(folder, dataset, *case, reads) for reads in (True, False)]
    return measured


def _row(
    folder: Path, dataset: Dataset, case: str, batch_size: int, augment: bool, reads: bool
) -> dict[str, Any]:
    total = len(dataset.train_labels)
    images = min(3840, total // 2)
    count = images // batch_size
    if count < 1:
        raise UsageError(f"{folder} has too few images for batches of {batch_size}")
    paths = _random_files(folder, count * batch_size)
    theirs: Any = image_folder(folder, augment) if reads else _decoded(dataset, augment)
    ours, peers = [], []
    for _ in range(_REPEATS):
        peers.append(_time_batch(lambda: _peer(theirs, batch_size), count))
        decoding = _time_decoding(paths) / count if reads else 0.0
        with reproducible(torch.device("cpu"), threads=1):  # as in a run
            ours.append(decoding + _time_batch(lambda: _ours(dataset, batch_size, augment), count))
    our_ms, peer_ms = 1e3 * statistics.median(ours), 1e3 * statistics.median(peers)
    return {
        "case": f"{case}, {'files' if reads else 'memory'}",
        "peer": f"torchvision {'ImageFolder' if reads else 'transforms'} + {_LOADER}",
        "speedup": peer_ms / our_ms,
        "ours_ms": our_ms,
        "peer_ms": peer_ms,
    }


def _random_files(folder: Path, count: int) -> list[Path]:
    """Files drawn at random, as the peer's shuffled loader reads them."""
    train = list_images(folder / "train")
    order = torch.randperm(len(train.files), generator=torch.Generator().manual_seed(0))
    return [train.folder / train.files[index][0] for index in order[:count].tolist()]


def _time_decoding(paths: list[Path]) -> float:
    began = time.perf_counter()
    decode(paths)
    return time.perf_counter() - began


def _time_batch(start: Callable[[], Batches], count: int) -> float:
    """Seconds per batch over `count` batches, begun where the pipeline is under way."""
    stream = start()
    next(stream)  # the workers have started, and the first batch has come
    began = time.perf_counter()
    for _ in islice(stream, count):
        pass
    return (time.perf_counter() - began) / count


def _ours(dataset: Dataset, batch_size: int, augment: bool) -> Batches:
    generator = torch.Generator().manual_seed(0)
    normalizer = Normalizer.of(dataset.mean, dataset.std, SIZE)
    count = len(dataset.train_labels)
    epoch = Epoch.draw(count, generator, generator if augment else None)
    return batches(dataset.train_images, dataset.train_labels, batch_size, epoch, normalizer)


def _decoded(dataset: Dataset, augment: bool) -> ArrayImages:
    images = dataset.train_images.permute(0, 2, 3, 1).contiguous().numpy()
    return ArrayImages(images, dataset.train_labels.tolist(), augment)


def _peer(images: Any, batch_size: int) -> Batches:
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(images, batch_size, shuffle=True, num_workers=2)
    return iter(loader)
