"""Where do a task's images come from? `load_dataset` finds out, and brings them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from gclip.errors import UsageError, choose
from gclip.training import cache, cifar, digits, folders, torchvision_sets
from gclip.training.dataset import SIZE, Dataset
from gclip.training.images import PixelForm, shown

TASKS = ("digits", "cifar10")
_DEPTH = 3  # how far below --data the images may lie
_TORCHVISION = "torchvision:"

_Found = tuple[Path, Callable[[Path, str], Dataset]]


def load_dataset(
    task: str,
    data: str | Path | None = None,
    download: bool = True,
    *,
    size: int | None = None,
    channels: int | None = None,
) -> Dataset:
    """The images of `task`, on the CPU.

    Args:
        task: ``digits`` (embedded; takes no `data`), ``cifar10``, ``images`` (class folders), or a
            set of torchvision's by its name there, such as ``torchvision:FashionMNIST``.
        data: for ``cifar10`` a folder that is or contains the official ``cifar-10-batches-py``, or
            ``train/`` and ``test/`` with a folder of images for each class; for ``images`` one of
            the latter kind. The nearest folder with images is taken; `UsageError` where there are
            several. For a set of torchvision's, what it calls ``root``. Without it, CIFAR-10 and
            torchvision's sets are looked for in the cache folder (``$GCLIP_CACHE``, or ``gclip`` in
            the user's own).
        download: bring CIFAR-10 or torchvision's set from its site where it is not in the cache.
        size: of the images' sides in pixels, for ``images`` (32 by default) and torchvision's sets
            (their own by default). Others are resized, and of those that are no squares the middle
            is taken. At another size it is another data set, with an `identity` of its own.
        channels: 3 for RGB or 1 for grey, for the same tasks; 3 by default, or the set's own.

    Raises:
        UsageError: in one sentence: an unknown task, no such folder, nothing usable in it, a
            damaged file, no network, no cache folder, or a size that the task does not have.

    Example:
        >>> digits = load_dataset("digits")
        >>> tuple(digits.train_images.shape), len(digits.test_labels), digits.classes[:3]
        ((1442, 3, 32, 32), 355, ('0', '1', '2'))
    """
    choose(task, tasks(), "task")
    _check_form(task, size, channels)
    if task.startswith(_TORCHVISION):
        root = None if data is None else _folder(data)
        name = task.removeprefix(_TORCHVISION)
        return torchvision_sets.load(name, task, root, download, size=size, channels=channels)
    if task == "images":
        if data is None:
            raise UsageError(
                "task images needs --data: a folder with train/<class>/<image> and "
                "test/<class>/<image>"
            )
        form = PixelForm(size or SIZE, channels or 3, crop=True)
        return _load_folder(_folder(data), task, partial(_class_folders, form=form))
    if task == "digits":
        if data is not None:
            raise UsageError(
                f"task digits is embedded and takes no data, but got {str(data)!r}; images of your "
                "own go with task cifar10"
            )
        return digits.load()
    if data is not None:
        return _load_folder(
            _folder(data), task, _cifar_images, f"be or contain {cifar.FOLDER}, or "
        )
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


def tasks() -> tuple[str, ...]:
    """The tasks that `load_dataset` knows."""
    return (*TASKS, "images", *(_TORCHVISION + name for name in torchvision_sets.names()))


def _check_form(task: str, size: object, channels: object) -> None:
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise UsageError(f"size must be a whole number ≥ 1, in pixels, but got {size!r}")
    if channels is not None and (isinstance(channels, bool) or channels not in (1, 3)):
        raise UsageError(f"channels must be 3 (RGB) or 1 (grey), but got {channels!r}")
    if task in TASKS and (size or SIZE, channels or 3) != (SIZE, 3):
        raise UsageError(
            f"task {task} has images of {SIZE}×{SIZE} with 3 channels, but got size {size or SIZE} "
            f"and channels {channels or 3}; task images takes any from class folders"
        )


def _folder(data: str | Path) -> Path:
    """The folder that `data` names, which is there."""
    data = cache.without_tilde(data, "the data folder")
    if not os.path.isdir(data):
        what = "is a file, not a folder" if os.path.exists(data) else "does not exist"
        raise UsageError(f"the data folder {shown(data)} {what}")
    if not os.access(data, os.R_OK | os.X_OK):
        raise UsageError(f"the data folder {shown(data)} cannot be read: permission denied")
    return data


def _load_folder(
    data: Path, task: str, images_in: Callable[[Path], _Found | None], otherwise: str = ""
) -> Dataset:
    """The images of the nearest folder in which `images_in` finds some."""
    for level in _levels(data, _DEPTH):
        found = [each for folder in level if (each := images_in(folder)) is not None]
        if len(found) > 1:
            places = " and ".join(shown(folder) for folder, _ in found[:2])
            raise UsageError(
                f"the data folder {shown(data)} has several sets of images ({places}"
                f"{' and more' if found[2:] else ''}); name one of them"
            )
        for folder, load in found:
            return load(folder, task)
    raise UsageError(
        f"no images were found in {shown(data)}: it must {otherwise}have "
        "train/<class>/<image> and test/<class>/<image>"
    )


def _class_folders(folder: Path, form: PixelForm) -> _Found | None:
    """The class folders that `folder` itself has, and what loads them; None where it has none."""
    is_it = folders.is_class_folders(folder)
    return (folder, partial(folders.load, form=form)) if is_it else None


def _cifar_images(folder: Path) -> _Found | None:
    """Class folders or CIFAR-10's batches."""
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
