"""Any images in class folders: ``train/<class>/<image>`` and ``test/<class>/<image>``.

Decoding tens of thousands of files takes seconds to minutes, so it happens once: the decoded
bytes are kept in the user's cache folder under a hash of the listing (names, sizes, times).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gclip.errors import UsageError
from gclip.training.dataset import SIZE, Dataset

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
_PARTS = ("train", "test")
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")

Listing = dict[str, list[tuple[str, int, int]]]


def is_class_folders(folder: Path) -> bool:
    """True where `folder` has ``train`` and ``test`` with at least one folder in each."""
    try:
        return all(any(map(os.DirEntry.is_dir, _entries(folder / part))) for part in _PARTS)
    except OSError:
        return False


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def cache_folder() -> Path:
    """Where decoded and downloaded data is kept: ``$GCLIP_CACHE``, or the user's cache folder."""
    if chosen := os.environ.get("GCLIP_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gclip"


def load(folder: Path, name: str) -> Dataset:
    """The images under `folder`; larger or smaller ones are resized to 32×32.

    Raises:
        UsageError: no images, a class in ``test`` that ``train`` lacks, or an unreadable image.
    """
    listing = {part: _list(folder / part) for part in _PARTS}
    classes = tuple(sorted({path.split("/")[0] for path, _, _ in listing["train"]}))
    strange = sorted({path.split("/")[0] for path, _, _ in listing["test"]} - set(classes))
    if strange:
        raise UsageError(
            f"{folder / 'test' / strange[0]} is a class that {folder / 'train'} lacks (its "
            f"classes: {', '.join(classes)})"
        )
    kept = cache_folder() / "images" / _hash(listing)
    found = _read(kept, name)
    if found is not None:
        return found
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, files in listing.items():
        arrays[f"{part}_images"] = _decode([folder / part / path for path, _, _ in files])
        labels = [classes.index(path.split("/")[0]) for path, _, _ in files]
        arrays[f"{part}_labels"] = np.array(labels, dtype=np.int64)
    dataset = _dataset(name, classes, arrays)
    _write(kept, dataset, arrays)
    return dataset


def _list(folder: Path) -> list[tuple[str, int, int]]:
    """(class/file, bytes, time of change) of every image, sorted."""
    files = []
    for group in _entries(folder):
        if not group.is_dir() or group.name.startswith("."):
            continue
        for entry in _entries(group.path):
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
                facts = entry.stat()
                files.append((f"{group.name}/{entry.name}", facts.st_size, facts.st_mtime_ns))
    if not files:
        raise UsageError(
            f"{folder} has no images in class folders (<class>/<image>, ending in "
            f"{', '.join(SUFFIXES)})"
        )
    return sorted(files)


def _hash(listing: Listing) -> str:
    text = json.dumps([SIZE, listing], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _decode(paths: list[Path]) -> NDArray[np.uint8]:
    """All images as (N, 32, 32, 3)."""
    images = np.empty((len(paths), SIZE, SIZE, 3), dtype=np.uint8)
    workers = os.cpu_count() or 1
    parts = np.array_split(np.arange(len(paths)), max(1, min(workers, len(paths))))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda part: _decode_into(images, paths, part), parts))
    return images


def _decode_into(
    images: NDArray[np.uint8], paths: list[Path], places: NDArray[np.signedinteger]
) -> None:
    from PIL import Image

    for place in places:
        path = paths[place]
        try:
            with Image.open(path) as image:
                colour = image.convert("RGB")
                if colour.size != (SIZE, SIZE):
                    colour = colour.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
                images[place] = np.asarray(colour)
        except (OSError, ValueError, SyntaxError) as error:
            raise UsageError(f"the image {path} does not read: {error}") from error


def _dataset(
    name: str, classes: tuple[str, ...], arrays: dict[str, NDArray[np.generic]], digest: str = ""
) -> Dataset:
    tensors: dict[str, Any] = {key: torch.from_numpy(value) for key, value in arrays.items()}
    for key in ("train_images", "test_images"):
        tensors[key] = tensors[key].permute(0, 3, 1, 2)
    return Dataset(name=name, classes=classes, digest=digest, **tensors)


def _read(folder: Path, name: str) -> Dataset | None:
    """The decoded images, if they are in the cache whole; a damaged copy is dropped."""
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        arrays = {key: np.load(folder / f"{key}.npy", allow_pickle=False) for key in _ARRAYS}
        found = _dataset(name, tuple(facts["classes"]), arrays)
        if found.digest == facts["digest"]:
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _write(folder: Path, dataset: Dataset, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Keep the decoded images: whole or not at all, whoever else is writing the same."""
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        for key, value in arrays.items():
            np.save(temporary / f"{key}.npy", value, allow_pickle=False)
        facts = {"classes": dataset.classes, "digest": dataset.digest}
        (temporary / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        with contextlib.suppress(FileExistsError):
            temporary.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            warnings.warn(
                f"the decoded images are not kept, and the next start decodes them again: {error}",
                stacklevel=2,
            )
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
