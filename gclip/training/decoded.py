"""Decoded images as a data set and in the cache: of class folders, and of torchvision's sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from gclip.errors import UsageError
from gclip.training import cache
from gclip.training.dataset import Dataset


def place(name: str) -> Path | None:
    """Where decoded images of this name are cached; None, with a warning, where nothing can be."""
    try:
        return cache.cache_folder() / "images" / name
    except UsageError as error:
        cache.warn_not_cached("decoded images", error)
        return None


def dataset(name: str, classes: tuple[str, ...], arrays: cache.Arrays) -> Dataset:
    """The data set of decoded images.

    Args:
        name: of the task.
        classes: the classes' names.
        arrays: images as uint8 ``(N, H, W, channels)`` and labels as int64 ``(N,)``.
    """
    tensors: dict[str, Any] = {key: torch.from_numpy(value) for key, value in arrays.items()}
    for key in ("train_images", "test_images"):
        tensors[key] = tensors[key].permute(0, 3, 1, 2)
    return Dataset(name=name, classes=classes, **tensors)


def read(cached: Path, name: str, stamp: str = "") -> tuple[Dataset, dict[str, int]] | None:
    """The decoded images and what was noted of them, if they are in the cache whole; a copy that is
    damaged, or has another stamp, is dropped."""
    found = cache.read(cached)
    if found is None:
        return None
    arrays, facts = found
    try:
        made = dataset(name, tuple(facts["classes"]), arrays)
        if made.digest == facts["digest"] and facts.get("stamp", "") == stamp:
            return made, dict(facts["notes"])
    except (ValueError, KeyError, TypeError):
        pass
    cache.drop(cached)
    return None


def write(
    cached: Path,
    made: Dataset,
    arrays: cache.Arrays,
    notes: Mapping[str, int] = MappingProxyType({}),
    stamp: str = "",
) -> None:
    """Keep decoded images for `read`.

    Args:
        cached: where, as `place` says.
        made: the data set of the images.
        arrays: what it was made of.
        notes: what else is to be known of the images.
        stamp: tells the files that were decoded, where `cached` does not.
    """
    facts = {"classes": made.classes, "digest": made.digest, "notes": dict(notes), "stamp": stamp}
    cache.write(cached, arrays, facts)
