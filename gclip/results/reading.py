"""Reading runs once: within a command, what was verified is not read from the disk again.

Only what need not be trained again is remembered: nobody replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gclip.results.run_files import StoredRun

MOST_BYTES = 512 * 1024**2
"""Of packed steps that are remembered: a few ten thousand runs of digits."""


class VerifiedRuns:
    """Runs that were read and verified, by their folder."""

    def __init__(self) -> None:
        self._runs: dict[Path, StoredRun] = {}
        self._bytes = 0

    def get(self, folder: Path) -> StoredRun | None:
        """The run in a folder, if it is remembered."""
        return self._runs.get(folder.absolute())

    def add(self, folder: Path, stored: StoredRun) -> None:
        """Remember a run, while there is room."""
        size = len(stored.archive)
        if self._bytes + size <= MOST_BYTES:
            self._runs[folder.absolute()] = stored
            self._bytes += size


VERIFIED: ContextVar[VerifiedRuns | None] = ContextVar("VERIFIED", default=None)
"""What is remembered here and now; None outside `reading_once`."""


@contextmanager
def reading_once() -> Iterator[None]:
    """Within the ``with`` block each run that need not be trained again is verified once."""
    if VERIFIED.get() is not None:  # one that has begun outside goes on
        yield
        return
    token = VERIFIED.set(VerifiedRuns())
    try:
        yield
    finally:
        VERIFIED.reset(token)
