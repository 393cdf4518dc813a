"""To stop at a good place: who is asked to end finishes what it is at, first.

A signal handler may not save a half-made training step. So whoever trains says, for a while, that
it will stop by itself (`at_a_good_place`), asks between steps whether it should (`is_wanted`), and
then stops (`obey`); a handler asks for it (`request`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_waiting = 0
_wanted: BaseException | None = None


def request(error: BaseException) -> bool:
    """Ask for an end by `error`; False where nobody says that they stop by themselves, so that
    the caller has to raise it."""
    global _wanted
    if not _waiting:
        return False
    _wanted = _wanted or error
    return True


def is_wanted() -> bool:
    """Whether somebody has asked."""
    return _wanted is not None


def obey() -> None:
    """Raise what was asked for, if it was."""
    global _wanted
    if _wanted is not None:
        error, _wanted = _wanted, None
        raise error


@contextmanager
def at_a_good_place() -> Iterator[None]:
    """Within the ``with`` block a request waits for `obey`, at the latest for the block's end."""
    global _waiting
    _waiting += 1
    try:
        yield
    finally:
        _waiting -= 1
        if not _waiting:
            obey()
