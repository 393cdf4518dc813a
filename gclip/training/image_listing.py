"""What lies in class folders: every image, and a count of all that is not read as one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gclip.errors import UsageError
from gclip.training.images import SUFFIXES, shown

# Written by desktops into every folder they show; never an image.
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}

# Why something is left out; the number of such things is told behind it.
OTHER = "left out without an image's suffix"
HIDDEN = "left out as hidden"
SPECIAL = "left out as pipes or devices"
BESIDE = "left out beside the class folders"

File = tuple[str, int, int, int, int]
"""Path below train or test, bytes, times of change (content, then anything) in ns, inode."""


@dataclass(frozen=True)
class Listing:
    """What is in ``train`` or ``test``.

    Attributes:
        folder: which one it is.
        classes: the names of the class folders, sorted, those without images too.
        files: the images in them, however deep, sorted.
        left: why things are left out, and which those are, by their paths below the folder.
    """

    folder: Path
    classes: list[str] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)

    @property
    def filled(self) -> set[str]:
        """The classes that have images."""
        return {class_of(path) for path, *_ in self.files}


def class_of(path: str) -> str:
    """The class of an image, by its path below ``train`` or ``test``."""
    return path.partition("/")[0]


def list_images(folder: Path) -> Listing:
    """All images in the class folders below `folder`; links are followed.

    Raises:
        UsageError: something cannot be read, a link leads nowhere, or back to where it lies.
    """
    found = Listing(folder)
    try:
        for entry in _visible(folder, "", found):
            if _is_folder(entry):
                found.classes.append(entry.name)
                _walk(entry, entry.name, (_identity(os.stat(folder)),), found)
            else:
                found.left.setdefault(BESIDE, []).append(entry.name)
    except OSError as error:
        raise UsageError(
            f"{shown(error.filename or folder)} cannot be read: {error.strerror or error}"
        ) from error
    found.files.sort()
    return found


def _walk(
    folder: os.DirEntry[str], path: str, above: tuple[tuple[int, int], ...], found: Listing
) -> None:
    """Add what is in a class's folder, and in the folders below it."""
    here = _identity(folder.stat())
    if here in above:
        raise UsageError(
            f"{shown(folder.path)} is a link to a folder that it lies in itself; remove the link"
        )
    for entry in _visible(folder.path, f"{path}/", found):
        inside = f"{path}/{entry.name}"
        if _is_folder(entry):
            _walk(entry, inside, (*above, here), found)
        elif not inside.lower().endswith(SUFFIXES):
            found.left.setdefault(OTHER, []).append(inside)
        elif not stat.S_ISREG((facts := entry.stat()).st_mode):  # a pipe would be waited for
            found.left.setdefault(SPECIAL, []).append(inside)
        else:
            times = facts.st_mtime_ns, facts.st_ctime_ns
            found.files.append((inside, facts.st_size, *times, facts.st_ino))


def _visible(folder: str | Path, path: str, found: Listing) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, sorted, apart from what is hidden, which is counted."""
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if entry.name in _LITTER:
            continue
        if entry.name.startswith("."):
            found.left.setdefault(HIDDEN, []).append(path + entry.name)
        else:
            yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A link that leads nowhere may stand for a whole class on a disk that is not mounted.
    if entry.is_symlink() and not os.path.exists(entry.path):
        raise UsageError(
            f"{shown(entry.path)} is a link to {shown(os.readlink(entry.path))}, which is not "
            "there; mount or restore it, or remove the link"
        )
    return entry.is_dir()


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def suffixes(paths: list[str]) -> list[str]:
    """The different suffixes of the paths, sorted; without one it is ``none``."""
    return sorted({PurePosixPath(path).suffix.lower() or "none" for path in paths})
