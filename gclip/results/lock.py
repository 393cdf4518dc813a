"""How do several processes, any of which may be killed, agree on who touches the store?

Locks of the operating system (``flock``): the kernel lets go of them when their holder dies,
however it dies, so nobody has to guess from a process id or a clock whether a writer is alive.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: the callers fall back to rules that need no lock
    fcntl = None

Held = Literal["yes", "no", "unsupported"]


@contextmanager
def hold(path: Path, *, exclusive: bool, patience: float = 10.0) -> Iterator[Held]:
    """Hold the lock file ``path`` (created if missing) inside the ``with`` block.

    Yields ``"yes"`` when the lock is held, ``"no"`` when others kept it for ``patience`` seconds,
    ``"unsupported"`` where the file system (or the platform) has no such locks. Any number of
    holders may share the lock with ``exclusive=False``. OSError: the file cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        held = _acquire(handle, exclusive, patience)
        try:
            yield held
        finally:
            # Explicitly, not only by closing: a process forked meanwhile shares this handle.
            if held == "yes" and fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def _acquire(handle: int, exclusive: bool, patience: float) -> Held:
    if fcntl is None:
        return "unsupported"
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return "yes"
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return "no"
            time.sleep(0.002)
        except OSError:  # ENOLCK, ENOSYS, EOPNOTSUPP: a network file system without locks
            return "unsupported"
