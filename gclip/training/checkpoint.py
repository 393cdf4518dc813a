"""A run's state on disk: there whole or not at all, and refused when a bit has flipped.

The file is one line (a mark and the SHA-256 of the rest), then what `torch.save` writes. It holds
tensors, lists, dicts, text and numbers only, so it is read without running any code.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from gclip.core.files import read_file
from gclip.core.tensor_files import load_tensors
from gclip.errors import UsageError

_MARK = "gclip-checkpoint-1"
_DAY = 24 * 3600.0
# Behind ".name.": whose temporary file it is; earlier versions did not say.
_TEMPORARY = re.compile(r"(?:(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-)?[a-z0-9_]{8}")


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` to `path`: until it is on the disk, what was there before stays.

    Raises:
        UsageError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    head = f"{_MARK} {hashlib.sha256(content).hexdigest()}\n".encode()
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.{_host()}-{os.getpid()}-", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(head)
            file.write(content)
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
    """What `save` wrote, on the CPU.

    Raises:
        UsageError: there is no such file, it is no checkpoint, it is damaged, or it holds what
            could run code.
    """
    path = Path(path)
    try:
        head, _, content = read_file(path).partition(b"\n")
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"the checkpoint {path} cannot be read: {why}") from error
    _sweep(path)
    mark, _, digest = head.decode("ascii", errors="replace").partition(" ")
    if mark != _MARK:
        raise UsageError(f"{path} is not a checkpoint of gclip; name another file")
    if hashlib.sha256(content).hexdigest() != digest:
        raise UsageError(f"the checkpoint {path} is damaged; delete it to begin the run again")
    found = load_tensors(content, f"the checkpoint {path}")
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not a checkpoint of gclip; name another file")
    return found


def _sweep(path: Path) -> None:
    """Remove what killed processes left half written beside `path`; a living one's file stays.

    A process is known to be dead on its own machine only. Elsewhere age tells: writing takes far
    less than a day.
    """
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            start, rest = entry.name[: len(path.name) + 2], entry.name[len(path.name) + 2 :]
            found = _TEMPORARY.fullmatch(rest)
            if start != f".{path.name}." or found is None or not entry.is_file():
                continue
            is_dead = found["host"] == _host() and _is_dead(int(found["pid"]))
            if is_dead or time.time() - entry.stat().st_mtime > _DAY:
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
