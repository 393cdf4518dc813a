"""Any images in class folders: ``train/<class>/…/<image>`` and ``test/<class>/…/<image>``.

All that lies there is read, or counted in a warning, or refused: a class never vanishes.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from pathlib import Path

import numpy as np

from gclip.errors import UsageError
from gclip.training import cache, decoded, images
from gclip.training.dataset import Dataset
from gclip.training.image_listing import OTHER, Listing, class_of, list_images, suffixes
from gclip.training.images import SUFFIXES, USUAL, PixelForm, shown

_PARTS = ("train", "test")
_DECODING = 2  # counts up when the same files are decoded to other bytes than before


def is_class_folders(folder: Path) -> bool:
    """True where `folder` has ``train`` and ``test`` with at least one folder or link in each.

    Raises:
        UsageError: ``train`` or ``test`` cannot be read.
    """
    parts = [folder / part for part in _PARTS]
    if not all(os.path.isdir(part) for part in parts):
        return False
    try:
        return all(map(_has_folders, parts))
    except OSError as error:
        raise UsageError(f"{shown(error.filename)} cannot be read: {error.strerror}") from error


def _has_folders(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.is_symlink() or entry.is_dir() for entry in entries)


def load(folder: Path, name: str, form: PixelForm = USUAL) -> Dataset:
    """The images under `folder`, in one form: of 32×32 with 3 channels by default.

    Warns once of all that is not used: files that are no images, hidden ones, further frames,
    transparency, and classes of ``train`` without images in ``test``.

    Raises:
        UsageError: a class without images, a class in ``test`` that ``train`` lacks, a link that
            leads nowhere, or an unreadable image.
    """
    train, test = (list_images(folder / part) for part in _PARTS)
    classes, label_of = _classes(train, test)
    cached = _cache_path(folder, form, train, test)
    found = None if cached is None else decoded.read(cached, name)
    if found is None:
        found = _decode(cached, name, form, (train, test), classes, label_of)
    dataset, notes = found
    _warn_unused(folder, train, test, {**_missing(train, test), **notes})
    return dataset


def _classes(train: Listing, test: Listing) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes' names, and the label of every class folder."""
    for part in (train, test):
        if not part.files:
            raise UsageError(
                f"{shown(part.folder)} has no images in class folders (<class>/<image>, ending in "
                f"{', '.join(SUFFIXES)})"
            )
        composed: dict[str, str] = {}
        for each in part.classes:
            other = composed.setdefault(_composed(each), each)
            if other != each:
                raise UsageError(
                    f"{shown(part.folder)} has two class folders that read {each}, with their "
                    "letters in different Unicode forms; put their images into one"
                )
    empty = [each for each in train.classes if each not in train.filled]
    if empty:
        why = [path for path in train.left.get(OTHER, ()) if class_of(path) == empty[0]]
        but = f", but {len(why)} files ending in {', '.join(suffixes(why))}" if why else ""
        more = f" (nor have {len(empty) - 1} more)" if empty[1:] else ""
        raise UsageError(
            f"the class folder {shown(train.folder / empty[0])} has no images{but}"
            f"{more}; put images in, or remove it"
        )
    labels = {_composed(each): label for label, each in enumerate(train.classes)}
    strange = [each for each in test.classes if _composed(each) not in labels]
    if strange:
        more = f", and so are {len(strange) - 1} more" if strange[1:] else ""
        raise UsageError(
            f"{shown(test.folder / strange[0])} is a class that {shown(train.folder)} lacks (its "
            f"classes: {shown(', '.join(train.classes))}){more}"
        )
    label_of = {each: labels[_composed(each)] for each in (*train.classes, *test.classes)}
    return tuple(train.classes), label_of


def _composed(name: str) -> str:
    # Some systems take a name's accents apart, so the same class may come in two spellings.
    return unicodedata.normalize("NFC", name)


def _cache_path(folder: Path, form: PixelForm, *parts: Listing) -> Path | None:
    """Where these images are cached, decoded: a name for where they lie and what they are."""
    # The usual form is its size alone: so those decoded before there were others are still found.
    into = form.size if form == USUAL else astuple(form)
    what = [_DECODING, into, str(folder.resolve()), [[p.classes, p.files] for p in parts]]
    name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
    return decoded.place(name)


def _decode(
    cached: Path | None,
    name: str,
    form: PixelForm,
    parts: Iterable[Listing],
    classes: tuple[str, ...],
    label_of: Mapping[str, int],
) -> tuple[Dataset, dict[str, int]]:
    arrays: cache.Arrays = {}
    notes: dict[str, int] = {}
    for key, part in zip(_PARTS, parts, strict=True):
        arrays[f"{key}_images"], image_notes = images.decode(
            [part.folder / f for f, *_ in part.files], form
        )
        labels = [label_of[class_of(path)] for path, *_ in part.files]
        arrays[f"{key}_labels"] = np.array(labels, dtype=np.int64)
        notes = {
            each: notes.get(each, 0) + image_notes.get(each, 0) for each in (*notes, *image_notes)
        }
    dataset = decoded.dataset(name, classes, arrays)
    # What was changed meanwhile is in the images, but not what the name stands for.
    if cached is not None and all(list_images(part.folder).files == part.files for part in parts):
        decoded.write(cached, dataset, arrays, notes)
    return dataset, notes


def _missing(train: Listing, test: Listing) -> dict[str, int]:
    """How many classes of ``train`` have no images in ``test``."""
    tested = {_composed(each) for each in test.filled}
    without = [each for each in train.classes if _composed(each) not in tested]
    return (
        {f"classes without test images (the first is {without[0]})": len(without)}
        if without
        else {}
    )


def _warn_unused(folder: Path, train: Listing, test: Listing, notes: Mapping[str, int]) -> None:
    """One warning for all that is not used."""
    left: dict[str, list[str]] = {}
    for part in (train, test):
        for why, paths in part.left.items():
            left.setdefault(why, []).extend(f"{part.folder.name}/{path}" for path in paths)
    parts = []
    for why, paths in left.items():
        kinds = f"{', '.join(suffixes(paths)[:8])}; " if why == OTHER else ""
        parts.append(f"{why}: {len(paths)} ({kinds}the first is {paths[0]})")
    parts += [f"{what}: {count}" for what, count in notes.items()]
    if parts:
        warnings.warn(
            shown(f"not all that lies in {folder} is used: {'; '.join(parts)}"), stacklevel=4
        )
