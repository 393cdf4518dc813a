"""Ctrl-C and SIGTERM: a sentence about what is not lost, and the exit code that shells expect.

Both raise `KeyboardInterrupt` where the command is; a scheduler's SIGTERM a kind of its own. The
second Ctrl-C ends the process where it is, and so does one while Python shuts down: there torch
and others still tidy up, and would show a traceback.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from gclip.text.screen import note

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended."""
TERMINATED = 143
"""The exit code of a command that SIGTERM ended."""

AGAIN = "what is in the store is kept; the same command begins again"

_TWICE = 0.25
"""Seconds in which a second Ctrl-C is the first once more: a parent may send it on, too."""
_SHOW_CURSOR = b"\x1b[?25h\n"


class Terminated(KeyboardInterrupt):
    """SIGTERM: whoever runs the process wants it to end."""


class _Signals:
    """What to do about signals while one command runs.

    Attributes:
        first: when the first one came.
        over: the command has ended; only Python's shutdown is left.
    """

    def __init__(self) -> None:
        self.first: float | None = None
        self.over = False

    def interrupt(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.over or (self.first is not None and now - self.first > _TWICE):
            if sys.stderr is not None and sys.stderr.isatty():
                with contextlib.suppress(OSError):
                    os.write(2, _SHOW_CURSOR)
            os._exit(INTERRUPTED)
        if self.first is None:
            self.first = now
            raise KeyboardInterrupt

    def terminate(self, _number: int, _frame: FrameType | None) -> None:
        if self.over:
            os._exit(TERMINATED)
        if self.first is None:  # else the command is ending already
            self.first = time.monotonic()
            raise Terminated


@contextmanager
def signals(*, whole_program: bool) -> Iterator[None]:
    """Within the ``with`` block Ctrl-C and SIGTERM are as described above.

    Handlers that somebody else has set stay, and so does "ignore", as of ``nohup``.

    Args:
        whole_program: nothing comes after the block but Python's shutdown.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    state = _Signals()
    usual = {
        signal.SIGINT: (signal.default_int_handler, state.interrupt),
        signal.SIGTERM: (signal.SIG_DFL, state.terminate),
    }
    before = {
        number: signal.signal(number, ours)
        for number, (theirs, ours) in usual.items()
        if signal.getsignal(number) is theirs
    }
    try:
        yield
    finally:
        state.over = True
        if not whole_program:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def interruptible(message: Callable[[], str]) -> Iterator[None]:
    """End on Ctrl-C or SIGTERM with their exit codes and a `message` about what is not lost."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise typer.Exit(tell(error, message())) from None


def tell(error: BaseException | None, message: str) -> int:
    """Say what ended a command, and what is not lost; the exit code.

    Args:
        error: the `KeyboardInterrupt`.
    """
    terminated = isinstance(error, Terminated)
    note(f"gclip: {'terminated' if terminated else 'interrupted'}: {message}")
    return TERMINATED if terminated else INTERRUPTED
