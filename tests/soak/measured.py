"""What a process holds: memory, open files, living tensors."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch


@contextmanager
def counting() -> Iterator[None]:
    """Within, only what has been made since counts: that is quickly looked through."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def tensors() -> int:
    """How many tensors Python knows of."""
    gc.collect()
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def files() -> list[str]:
    """What the process has open, but for the folder that says it."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return []
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(folder / name))
        except OSError:  # of the listing itself
            continue
    return sorted(found)


def resident() -> int:
    """Bytes of memory that the process occupies, without what its allocator only keeps in store."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)
    text = Path("/proc/self/statm").read_text(encoding="ascii")
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")
