"""A run's state on disk: there whole or not at all, and refused when a bit has flipped.

The file is one line (a mark and the SHA-256 of the rest), one of JSON that says what it is about,
then what `torch.save` writes. It holds tensors, lists, dicts, text and numbers only, so it is read
without running any code. Checkpoints of earlier versions have no second line.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gclip.core.files import read_file, read_start
from gclip.core.tensor_files import load_tensors
from gclip.errors import UsageError

_MARK, _WITHOUT_HEAD = "gclip-checkpoint-2", "gclip-checkpoint-1"
_LONGEST_HEAD = 4 << 20
_DAY = 24 * 3600.0
# Behind ".name.": whose temporary file it is; earlier versions did not say.
_TEMPORARY = re.compile(r"(?:(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-)?[a-z0-9_]{8}")


class DamagedCheckpoint(UsageError):
    """The file is there and can be read, but is no whole checkpoint."""


def save(path: str | Path, state: dict[str, Any], about: Mapping[str, Any] | None = None) -> None:
    """Write `state` to `path`: until it is on the disk, what was there before stays.

    Args:
        path: of the file.
        state: all that is needed to go on.
        about: what `read_about` tells of it without reading all; JSON-serialisable.

    Raises:
        UsageError: the folder cannot be written to, or the disk is full.
    """
    write(path, pack(state, about))


def pack(state: dict[str, Any], about: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a checkpoint; see `save`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    head, content = json.dumps(dict(about or {})).encode() + b"\n", buffer.getbuffer()
    digest = hashlib.sha256(head)
    digest.update(content)
    return b"".join((f"{_MARK} {digest.hexdigest()}\n".encode(), head, content))


def write(path: str | Path, packed: bytes) -> None:
    """Write what `pack` gave, as `save` does.

    Raises:
        UsageError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.{_host()}-{os.getpid()}-", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UsageError(f"the checkpoint {path} cannot be written: {error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def load(path: str | Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU; what killed processes left beside it is removed.

    Raises:
        DamagedCheckpoint: it is no checkpoint, it is damaged, or it holds what could run code.
        UsageError: there is no such file, or it cannot be read.
    """
    path = Path(path)
    found = read(path)
    _sweep(path)
    return found


def read(path: Path) -> dict[str, Any]:
    """As `load`, and nothing in the folder is changed.

    Raises:
        DamagedCheckpoint, UsageError: as `load`.
    """
    try:
        head, _, content = read_file(path).partition(b"\n")
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"the checkpoint {path} cannot be read: {why}") from error
    mark, _, digest = head.decode("ascii", errors="replace").partition(" ")
    if mark not in (_MARK, _WITHOUT_HEAD):
        raise DamagedCheckpoint(f"{path} is not a checkpoint of gclip; name another file")
    if hashlib.sha256(content).hexdigest() != digest:
        raise DamagedCheckpoint(
            f"the checkpoint {path} is damaged; delete it to begin the run again"
        )
    start = 0 if mark == _WITHOUT_HEAD else content.find(b"\n") + 1
    try:
        found = load_tensors(content[start:], f"the checkpoint {path}")
    except UsageError as error:  # sealed by somebody else
        raise DamagedCheckpoint(str(error)) from error
    if not isinstance(found, dict):
        raise DamagedCheckpoint(f"{path} is not a checkpoint of gclip; name another file")
    return found


def read_about(path: str | Path) -> dict[str, Any] | None:
    """What a checkpoint is about, from its beginning; None where that does not say it.

    It is not verified: `load` does that.
    """
    try:
        first, _, rest = read_start(path, _LONGEST_HEAD).partition(b"\n")
        if first.split(b" ")[0] != _MARK.encode():
            return None
        found = json.loads(rest.partition(b"\n")[0])
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_temporary(name: str) -> bool:
    """Whether a file's name is that of a checkpoint half written."""
    stem, _, rest = name.removeprefix(".").rpartition(".")
    return name.startswith(".") and bool(stem) and _TEMPORARY.fullmatch(rest) is not None


def is_orphaned(path: Path) -> bool:
    """Whether nobody writes any more to a file that `is_temporary`.

    A process is known to be dead on its own machine only. Elsewhere age tells: writing takes far
    less than a day.
    """
    found = _TEMPORARY.fullmatch(path.name.rpartition(".")[2])
    if found is not None and found["host"] == _host() and _is_dead(int(found["pid"])):
        return True
    try:
        return time.time() - path.stat().st_mtime > _DAY
    except OSError:
        return False


def _sweep(path: Path) -> None:
    """Remove what killed processes left half written beside `path`; a living one's file stays."""
    start = f".{path.name}."
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            is_ours = entry.name.startswith(start) and _TEMPORARY.fullmatch(
                entry.name.removeprefix(start)
            )
            if is_ours and entry.is_file() and is_orphaned(Path(entry.path)):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_dead(pid: int) -> bool:
    if os.name == "nt":  # where asking would end the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # somebody else's, or no process id
        pass
    return False


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
