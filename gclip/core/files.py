"""Reading what is meant to be a file, and may be anything that has a path."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_file(path: str | Path) -> bytes:
    """The bytes of a file, as ``Path.read_bytes``, but without waiting for a pipe's writer.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe or a device.
    """
    return read_start(path, -1)


def read_start(path: str | Path, most: int) -> bytes:
    """The first bytes of a file, `most` of them at most; as `read_file` otherwise.

    Raises:
        OSError: as `read_file`.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"it is {_kind(mode)}, not a file", str(path))
        return file.read(most)


def what_is_at(path: str | Path) -> str:
    """Why a path is no file, in words that follow "it is": "not there", "a folder", "a pipe"."""
    try:
        return _kind(os.stat(path).st_mode)
    except OSError:
        return "not there"


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
