"""CIFAR-10's official batches: read, verified against their checksums, downloaded on demand."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gclip.errors import UsageError
from gclip.training.dataset import SIZE, Dataset

FOLDER = "cifar-10-batches-py"


def is_batches(folder: Path) -> bool:
    """True where `folder` is the one that the official archive unpacks to."""
    return (folder / "data_batch_1").is_file()


def load(folder: Path, name: str) -> Dataset:
    """The official batches in `folder`.

    Raises:
        UsageError: a batch is missing, or is not the official one.
    """
    from torchvision.datasets import CIFAR10

    parts: dict[str, list[Any]] = {}
    for part, batches in (("train", CIFAR10.train_list), ("test", CIFAR10.test_list)):
        for file, checksum in batches:
            # Only what has the right checksum is unpickled: a pickle can run any code.
            batch = pickle.loads(_verified(folder / file, checksum), encoding="latin1")
            pixels = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, SIZE, SIZE)
            parts.setdefault(f"{part}_images", []).append(pixels)
            parts.setdefault(f"{part}_labels", []).append(np.asarray(batch["labels"], np.int64))
    facts = CIFAR10.meta
    meta = pickle.loads(_verified(folder / facts["filename"], facts["md5"]), encoding="latin1")
    tensors: dict[str, Any] = {
        key: torch.from_numpy(np.concatenate(arrays)) for key, arrays in parts.items()
    }
    return Dataset(name=name, classes=tuple(meta[facts["key"]]), **tensors)


def download(folder: Path) -> Path:
    """Download and unpack the official archive below `folder`; returns the batches' folder.

    Raises:
        UsageError: no network, or no room.
    """
    from torchvision.datasets import CIFAR10

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):
            CIFAR10(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"CIFAR-10 could not be downloaded to {folder} ({reason}); with a network it comes by "
            f"itself, else give --data a folder that has {FOLDER} or train/<class>/ and "
            "test/<class>/ with images"
        ) from error
    return folder / FOLDER


def _verified(path: Path, checksum: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"CIFAR-10's {path.name} is missing in {path.parent}: {error}") from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != checksum:
        raise UsageError(
            f"{path} is not the official CIFAR-10 file (its MD5 is not {checksum}); delete the "
            "folder and let it be downloaded again"
        )
    return content
