"""CIFAR-10's official batches: read, verified against their checksums, downloaded on demand.

Where an extraction was interrupted, or there was none yet, what is missing is taken from the
archive beside: that needs neither a network nor room on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import pickle
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gclip.errors import UsageError
from gclip.training import cache
from gclip.training.dataset import SIZE, Dataset
from gclip.training.images import shown

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"


class Incomplete(UsageError):
    """Official files are missing or damaged, and no archive beside them has them."""


def find(folder: Path) -> Path | None:
    """The batches' folder, if `folder` is it or has the archive that unpacks to it; else None."""
    if any(os.path.isfile(folder / file) for file in _checksums()):
        return folder
    return folder / FOLDER if os.path.isfile(folder / ARCHIVE) else None


def load(folder: Path, name: str, *, own: bool = False) -> Dataset:
    """The official batches in `folder`; missing files, and those cut short, from the archive.

    Args:
        folder: the batches, with the archive beside the folder where there is one.
        name: of the task.
        own: whether the folder is gclip's, so that any damaged file in it may be replaced.
            Elsewhere a whole file with other content may be somebody's work.

    Raises:
        Incomplete: a batch is missing or damaged, and the archive does not have it.
        UsageError: a file cannot be read, or is not the official one.
    """
    from torchvision.datasets import CIFAR10

    contents = _contents(folder, own)
    parts: dict[str, list[Any]] = {}
    for part, batches in (("train", CIFAR10.train_list), ("test", CIFAR10.test_list)):
        for file, _ in batches:
            batch = _unpickled(contents[file])
            pixels = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, SIZE, SIZE)
            parts.setdefault(f"{part}_images", []).append(pixels)
            parts.setdefault(f"{part}_labels", []).append(np.asarray(batch["labels"], np.int64))
    meta = _unpickled(contents[CIFAR10.meta["filename"]])
    tensors: dict[str, Any] = {
        key: torch.from_numpy(np.concatenate(arrays)) for key, arrays in parts.items()
    }
    return Dataset(name=name, classes=tuple(meta[CIFAR10.meta["key"]]), **tensors)


def download(folder: Path) -> Path:
    """Download the official archive to `folder`; returns the batches' folder, for `load`.

    Raises:
        UsageError: no network, no room, or no permission.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_url

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):
            download_url(CIFAR10.url, str(folder), ARCHIVE, CIFAR10.tgz_md5)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"CIFAR-10 could not be downloaded to {shown(folder)} "
            f"({' '.join(str(error).split())}); {_advice(error)}, or give --data a folder that has "
            f"{FOLDER} or train/<class>/ and test/<class>/ with images"
        ) from error
    return folder / FOLDER


class _ArraysOnly(pickle.Unpickler):
    """Of pickles, what the official batches hold, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.partition(".")[0], name) in _IN_BATCHES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not what CIFAR-10's batches hold")


_IN_BATCHES = {
    *(("numpy", name) for name in ("_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer")),
    ("_codecs", "encode"),
}


def _unpickled(content: bytes) -> Any:
    return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()


def _advice(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "free 200 MB there, set GCLIP_CACHE to a folder with room"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return "set GCLIP_CACHE to a folder that you may write"
    return "repeat it with a network"


def _checksums() -> dict[str, str]:
    """The official files' MD5 by their names."""
    from torchvision.datasets import CIFAR10

    facts = CIFAR10.meta
    return {**dict([*CIFAR10.train_list, *CIFAR10.test_list]), facts["filename"]: facts["md5"]}


def _contents(folder: Path, own: bool) -> dict[str, bytes]:
    """All official files, every one verified: a pickle can run any code."""
    checksums = _checksums()
    found = {file: _read(folder / file) for file in checksums}
    right = {
        file: content
        for file, content in found.items()
        if content is not None and _is(content, checksums[file])
    }
    wrong = {file: content for file, content in found.items() if file not in right}
    if not wrong:
        return right
    archive = folder.parent / ARCHIVE
    unpacked = {
        file: content
        for file, content in _unpacked(archive, wrong).items()
        if _is(content, checksums[file])
    }
    for file, content in wrong.items():
        official = unpacked.get(file)
        cut = official is not None and official.startswith(content or b"")
        if not (cut or (own and official is not None)):
            raise _refused(folder, file, content, archive, official is not None)
    _keep(folder, unpacked)
    return right | unpacked


def _refused(
    folder: Path, file: str, content: bytes | None, archive: Path, unpacked: bool
) -> UsageError:
    if content is None:
        what = f"CIFAR-10's {file} is missing in {shown(folder)}"
    else:
        what = f"{shown(folder / file)} is not the official CIFAR-10 file (by its MD5)"
    if unpacked:
        return UsageError(f"{what}; delete it, and it is taken from {shown(archive)}")
    beside = "is damaged" if archive.is_file() else "is not there"
    return Incomplete(
        f"{what}, and the archive {shown(archive)} {beside}; bring the archive again, or delete "
        "both and let CIFAR-10 be downloaded"
    )


def _read(path: Path) -> bytes | None:
    """The content of a file; None where there is none."""
    if not path.is_file():
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{shown(path)} cannot be read: {error.strerror or error}") from error


def _is(content: bytes, checksum: str) -> bool:
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == checksum


def _unpacked(archive: Path, files: Mapping[str, object]) -> dict[str, bytes]:
    """Those of the files that the archive has, as far as it reads; not verified."""
    found: dict[str, bytes] = {}
    if not archive.is_file():
        return found
    # Each file that comes out is verified by itself, so a torn archive gives what it has.
    with (
        contextlib.suppress(tarfile.TarError, EOFError, zlib.error, OSError),
        tarfile.open(archive, "r:gz") as members,
    ):
        for member in members:
            folder, _, file = member.name.removeprefix("./").rpartition("/")
            if folder == FOLDER and file in files and (stream := members.extractfile(member)):
                found[file] = stream.read()
    return found


def _keep(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files, each whole or not at all; where that is not possible, warn."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            handle, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)
            try:
                with open(handle, "wb") as target:
                    target.write(content)
                os.chmod(temporary, 0o644)  # others may read the cache, too
                os.replace(temporary, folder / file)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
    except OSError as error:
        cache.warn_not_cached("unpacked CIFAR-10 batches", error)
