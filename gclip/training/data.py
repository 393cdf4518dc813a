"""Where do a task's images come from? `load_dataset` finds out, and brings them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gclip.errors import UsageError, choose
from gclip.training import cifar, digits, folders
from gclip.training.checks import TASKS
from gclip.training.dataset import Dataset

_DEPTH = 3  # how far below --data the images may lie


def load_dataset(task: str, data: str | Path | None = None, download: bool = True) -> Dataset:
    """The images of `task`, on the CPU.

    Args:
        task: ``digits`` (embedded; takes no `data`) or ``cifar10``.
        data: a folder that is or contains the official ``cifar-10-batches-py``, or ``train/`` and
            ``test/`` with a folder of images for each class. Without it, CIFAR-10 is looked for in
            the cache folder (``$GCLIP_CACHE``, or ``gclip`` in the user's own).
        download: bring CIFAR-10 from its site where it is not in the cache.

    Raises:
        UsageError: in one sentence: an unknown task, no such folder, nothing usable in it, a
            damaged file, or no network.
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
        return _load_folder(Path(data).expanduser(), task)
    cache = folders.cache_folder()
    batches = cache / cifar.FOLDER
    if cifar.is_batches(batches):
        return cifar.load(batches, task)
    if not download:
        raise UsageError(
            f"CIFAR-10 is not in the cache folder {cache}; give a data folder, or let it be "
            "downloaded"
        )
    return cifar.load(cifar.download(cache), task)


def _load_folder(data: Path, task: str) -> Dataset:
    if not data.is_dir():
        what = "is a file, not a folder" if data.exists() else "does not exist"
        raise UsageError(f"the data folder {data} {what}")
    for folder in _below(data, _DEPTH):
        if cifar.is_batches(folder):
            return cifar.load(folder, task)
        if folders.is_class_folders(folder):
            return folders.load(folder, task)
    raise UsageError(
        f"no images were found in {data}: it must be or contain {cifar.FOLDER}, or have "
        "train/<class>/<image> and test/<class>/<image>"
    )


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """`folder` and the folders below it, the nearest first."""
    level = [folder]
    for _ in range(depth):
        yield from level
        level = [
            Path(entry.path)
            for above in level
            if os.access(above, os.R_OK | os.X_OK)
            for entry in sorted(os.scandir(above), key=lambda entry: entry.name)
            if entry.is_dir() and not entry.name.startswith(".")
        ]
