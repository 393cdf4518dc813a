"""Torchvision's own sets of images with classes, by their names there.

Torchvision finds, downloads and verifies their files, and decodes each image; here they become one
tensor of bytes, which is kept in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gclip.errors import UsageError, choose
from gclip.training import cache, decoded
from gclip.training.dataset import Dataset
from gclip.training.images import PixelForm, in_channels, shown

if TYPE_CHECKING:
    from PIL import Image

_ADVICE = "You can use download=True to download it"  # of torchvision, to those who call it
_DECODING = 1  # counts up when the same files are decoded to other bytes than before

_BY_TRAIN = ({"train": True}, {"train": False})
_BY_SPLIT = ({"split": "train"}, {"split": "test"})
_TRAINVAL = ({"split": "trainval"}, {"split": "test"})

_SETS: dict[str, Sequence[dict[str, Any]]] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST"), _BY_TRAIN),
    **dict.fromkeys(("QMNIST", "USPS"), _BY_TRAIN),
    "EMNIST": [{"split": "balanced", **each} for each in _BY_TRAIN],
    **dict.fromkeys(("Country211", "DTD", "Flowers102", "Food101", "GTSRB"), _BY_SPLIT),
    **dict.fromkeys(("RenderedSST2", "STL10", "SVHN"), _BY_SPLIT),
    **dict.fromkeys(("FGVCAircraft", "OxfordIIITPet"), _TRAINVAL),
    "Imagenette": ({"split": "train"}, {"split": "val"}),
}
"""How each set is asked for its training images and for its test images."""


def names() -> tuple[str, ...]:
    """The sets that `load` knows, as torchvision calls them."""
    return tuple(sorted(_SETS))


def load(
    name: str,
    task: str,
    data: Path | None = None,
    download: bool = True,
    *,
    size: int | None = None,
    channels: int | None = None,
) -> Dataset:
    """One of torchvision's sets.

    Args:
        name: as torchvision calls it, such as ``FashionMNIST``.
        task: what the data set is called.
        data: the folder that torchvision calls ``root``, from which it is read and to which nothing
            is written. Without it, ``torchvision/<name>`` in the cache folder.
        download: let torchvision bring it to the cache folder where it is not there.
        size: of the images' sides in pixels: others are resized, and their middle is taken. Their
            own by default, which has to be that of all.
        channels: 3 for RGB, 1 for grey; their own by default.

    Raises:
        UsageError: an unknown name; it is not there and may not or cannot be downloaded, or does
            not read; or images differ in size or colour, and neither is given.
    """
    choose(name, names(), "set of torchvision")
    root = cache.cache_folder() / "torchvision" / name if data is None else data
    what = ["torchvision", _DECODING, name, size, channels, str(root.resolve())]
    cached = decoded.place(_hashed(what))
    stamp = _stamp(root)
    found = decoded.read(cached, task, stamp) if cached and stamp else None
    if found is not None:
        return found[0]
    parts = _opened(name, root, download=download and data is None)
    stamp = _stamp(root)  # a download brings files
    arrays, classes = _decoded(name, parts, size, channels)
    dataset = decoded.dataset(task, classes, arrays)
    # What was changed meanwhile is in the images, but not what the stamp stands for.
    if cached is not None and stamp and stamp == _stamp(root):
        decoded.write(cached, dataset, arrays, stamp=stamp)
    return dataset


def _opened(name: str, root: Path, *, download: bool) -> list[Any]:
    """Torchvision's objects for training and test images."""
    from torchvision import datasets

    make = getattr(datasets, name)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return [make(str(root), **asked) for asked in _SETS[name]]
        except Exception as error:  # damaged bytes make torchvision raise anything
            if not download:
                raise _missing(name, root, error) from error
        try:
            root.mkdir(parents=True, exist_ok=True)
            return [make(str(root), **asked, download=True) for asked in _SETS[name]]
        except Exception as error:
            raise _missing(name, root, error, " and could not be downloaded") from error


def _missing(name: str, root: Path, error: Exception, download: str = "") -> UsageError:
    reason = _reason(error).removesuffix(_ADVICE).rstrip(". ")
    return UsageError(
        f"torchvision's {name} was not read from {shown(root)}{download} ({reason}); bring it to "
        "the cache with a network and without --data, or give --data a folder from which "
        f"torchvision.datasets.{name} reads it"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _decoded(
    name: str, parts: Sequence[Any], size: int | None, channels: int | None
) -> tuple[cache.Arrays, tuple[str, ...]]:
    if not all(map(len, parts)):
        raise UsageError(f"torchvision's {name} has no images to learn from, or none to measure on")
    form = _Form(name, parts[0][0][0], size, channels)
    arrays: cache.Arrays = {}
    for part, images in zip(("train", "test"), parts, strict=True):
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = _all(name, images, form)
    highest = max(int(arrays[f"{part}_labels"].max()) for part in ("train", "test"))
    given = getattr(parts[0], "classes", None) or [str(label) for label in range(highest + 1)]
    classes = tuple(each if isinstance(each, str) else each[0] for each in given)
    lowest = min(int(arrays[f"{part}_labels"].min()) for part in ("train", "test"))
    if lowest < 0 or highest >= len(classes):
        raise UsageError(
            f"torchvision's {name} has {len(classes)} classes, but labels from {lowest} to "
            f"{highest}"
        )
    return arrays, classes


def _all(name: str, images: Any, form: _Form) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images and labels of a part."""
    pixels = np.empty((len(images), *form.shape), dtype=np.uint8)
    labels = np.empty(len(images), dtype=np.int64)
    workers = min(os.cpu_count() or 1, len(images))

    def work(indices: NDArray[np.signedinteger]) -> None:
        for index in indices.tolist():
            try:
                image, label = images[index]
            except Exception as error:  # damaged bytes make Pillow's plugins raise anything
                raise UsageError(
                    f"image {index} of torchvision's {name} does not read: {_reason(error)}"
                ) from error
            pixels[index], labels[index] = form.pixels(image), label

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, np.array_split(np.arange(len(images)), workers)))
    return pixels, labels


class _Form:
    """What the images of a set are made into: what is asked for, or what the first one is."""

    def __init__(
        self, name: str, first: Image.Image, size: int | None, channels: int | None
    ) -> None:
        self._name = name
        self._size, self._mode = first.size, first.mode if channels is None else None
        self._channels = channels or (1 if first.mode in ("1", "L") else 3)
        self._form = None if size is None else PixelForm(size, self._channels, crop=True)
        height, width = (first.height, first.width) if size is None else (size, size)
        self.shape = (height, width, self._channels)

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """An image as an array of `shape`."""
        if self._mode is not None and image.mode != self._mode:
            raise UsageError(
                f"torchvision's {self._name} has images of the modes {self._mode} and "
                f"{image.mode}; say how many channels they are to have: 3 (RGB) or 1 (grey)"
            )
        if self._form is not None:
            return self._form.pixels(image)
        if image.size != self._size:
            raise UsageError(
                f"torchvision's {self._name} has images of different sizes "
                f"({'×'.join(map(str, self._size))} and {'×'.join(map(str, image.size))} pixels); "
                "say what size they are to have"
            )
        return in_channels(image, self._channels)


def _stamp(root: Path) -> str:
    """What the files below `root` are, in short; empty where there are none, or it is not known."""
    try:
        files = sorted(_files(root))
    except OSError:
        return ""
    return _hashed(files) if files else ""


def _hashed(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def _files(root: Path) -> Iterator[tuple[str, int, int, int, int]]:
    """Path below `root`, bytes, times of change and inode of all files.

    Raises:
        OSError: a folder or file cannot be looked at, or a link to a folder is not followed.
    """

    def stop(error: OSError) -> None:
        raise error

    for folder, below, files in os.walk(root, onerror=stop):
        for each in below:
            if os.path.islink(os.path.join(folder, each)):
                raise OSError(f"{each} is a link to a folder")
        for file in files:
            path = os.path.join(folder, file)
            facts = os.stat(path)
            times = facts.st_mtime_ns, facts.st_ctime_ns
            yield os.path.relpath(path, root), facts.st_size, *times, facts.st_ino
