"""Where do a task's images come from? `load_dataset` finds out, and brings them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from gclip.errors import UsageError, choose
from gclip.training import cache, cifar, digits, folders
from gclip.training.dataset import Dataset
from gclip.training.images import shown

TASKS = ("digits", "cifar10")
_DEPTH = 3  # how far below --data the images may lie


def load_dataset(task: str, data: str | Path | None = None, download: bool = True) -> Dataset:
    """The images of `task`, on the CPU.

    Args:
        task: ``digits`` (embedded; takes no `data`) or ``cifar10``.
        data: a folder that is or contains the official ``cifar-10-batches-py``, or ``train/`` and
            ``test/`` with a folder of images for each class. Without it, CIFAR-10 is looked for in
            the cache folder (``$GCLIP_CACHE``, or ``gclip`` in the user's own). The nearest folder
            with images is taken; `UsageError` where there are several.
        download: bring CIFAR-10 from its site where it is not in the cache.

    Raises:
        UsageError: in one sentence: an unknown task, no such folder, nothing usable in it, a
            damaged file, no network, or no cache folder.

    Example:
        >>> digits = load_dataset("digits")
        >>> tuple(digits.train_images.shape), len(digits.test_labels), digits.classes[:3]
        ((1442, 3, 32, 32), 355, ('0', '1', '2'))
    """
    choose(task, TASKS, "task")
    if task == "digits":
        if data is not None:
            raise UsageError(
                f"task digits is embedded and takes no data, but got {str(data)!r}; images of your "
                "own go with task cifar10"
            )
        return digits.load()
    if data is not None:
        return _load_folder(cache.without_tilde(data, "the data folder"), task)
    folder = cache.cache_folder()
    batches = folder / cifar.FOLDER
    if cifar.find(batches) or cifar.find(folder):
        try:
            return cifar.load(batches, task, own=True)
        except cifar.Incomplete:
            if not download:
                raise
    elif not download:
        raise UsageError(
            f"CIFAR-10 is not in the cache folder {shown(folder)}; give a data folder, or let it "
            "be downloaded"
        )
    return cifar.load(cifar.download(folder), task, own=True)


def _load_folder(data: Path, task: str) -> Dataset:
    if not data.is_dir():
        what = "is a file, not a folder" if data.exists() else "does not exist"
        raise UsageError(f"the data folder {shown(data)} {what}")
    if not os.access(data, os.R_OK | os.X_OK):
        raise UsageError(f"the data folder {shown(data)} cannot be read: permission denied")
    for level in _levels(data, _DEPTH):
        found = [each for folder in level if (each := _images_in(folder)) is not None]
        if len(found) > 1:
            places = " and ".join(shown(folder) for folder, _ in found[:2])
            raise UsageError(
                f"the data folder {shown(data)} has several sets of images ({places}"
                f"{' and more' if found[2:] else ''}); name one of them"
            )
        for folder, load in found:
            return load(folder, task)
    raise UsageError(
        f"no images were found in {shown(data)}: it must be or contain {cifar.FOLDER}, or have "
        "train/<class>/<image> and test/<class>/<image>"
    )


def _images_in(folder: Path) -> tuple[Path, Callable[[Path, str], Dataset]] | None:
    """The images that `folder` itself has, and what loads them; None where it has none."""
    if folders.is_class_folders(folder):
        return folder, folders.load
    batches = cifar.find(folder)
    return None if batches is None else (batches, cifar.load)


def _levels(folder: Path, depth: int) -> Iterator[list[Path]]:
    """`folder`, then those below it, the nearest first."""
    level = [folder]
    for _ in range(depth):
        yield level
        level = [
            Path(entry.path)
            for above in level
            if os.access(above, os.R_OK | os.X_OK)
            for entry in sorted(os.scandir(above), key=lambda entry: entry.name)
            if not entry.name.startswith(".") and entry.is_dir()
        ]
