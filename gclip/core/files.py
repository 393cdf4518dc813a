"""Reading what is meant to be a file, and may be anything that has a path."""

from __future__ import annotations

import errno
import math
import os
import stat
from pathlib import Path

_PIECE = 2**16
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


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
    handle = os.open(path, os.O_RDONLY | _WITHOUT_WAITING)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            said = f"it is {_kind(found.st_mode)}, not a file"
            # An OSError, which Python makes an IsADirectoryError of by its number.
            number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
            raise OSError(number, said, str(path))
        parts: list[bytes] = []
        left = most if most >= 0 else math.inf
        while left:
            asked = int(min(left, max(found.st_size + 1, _PIECE) if not parts else _PIECE))
            part = os.read(handle, asked)
            parts.append(part)
            left -= len(part)
            if len(part) < asked:  # of a file, the end
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(handle)


def what_is_at(path: str | Path) -> str:
    """Why a path is no file, in words that follow "it is": "not there", "a folder", "a pipe"."""
    try:
        return _kind(os.stat(path).st_mode)
    except OSError:
        return "not there"


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
