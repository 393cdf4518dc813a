"""Ctrl-C and SIGTERM: a sentence about what is not lost, and the exit code that shells expect.

Both raise `KeyboardInterrupt`, a scheduler's SIGTERM a kind of its own: where the command is, or in
training when the step under way has been finished and its run saved (`gclip.core.stopping`). The
second signal ends the process where it is, and so does one while
Python shuts down: there torch and others still tidy up, and would show a traceback.
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
from pathlib import Path
from types import FrameType

import typer

from gclip.core import stopping
from gclip.text.screen import note

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended."""
TERMINATED = 143
"""The exit code of a command that SIGTERM ended."""

AGAIN = "what is in the store is kept; the same command begins again"

_TWICE = 0.25
"""Seconds in which a second signal is the first once more: a parent may send it on, too."""
_PATIENCE = 10.0
"""Seconds that a step may take to its end; schedulers give a process 30."""
_SHOW_CURSOR = b"\x1b[?25h\n"


class Terminated(KeyboardInterrupt):
    """SIGTERM: whoever runs the process wants it to end."""


class _Signals:
    """What to do about signals while one command runs.

    Attributes:
        first: when the first one came.
        over: the command has ended; only Python's shutdown is left.
        late: what a step that takes too long is ended by.
    """

    def __init__(self) -> None:
        self.first: float | None = None
        self.over = False
        self.late: KeyboardInterrupt | None = None

    def interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._end(KeyboardInterrupt(), INTERRUPTED)

    def terminate(self, _number: int, _frame: FrameType | None) -> None:
        self._end(Terminated(), TERMINATED)

    def _end(self, error: KeyboardInterrupt, code: int) -> None:
        now = time.monotonic()
        if self.late is not None:  # no signal from outside: the step takes too long
            late, self.late = self.late, None
            if stopping.is_wanted():
                raise late
            return
        if self.over or (self.first is not None and now - self.first > _TWICE):
            if sys.stderr is not None and sys.stderr.isatty():
                with contextlib.suppress(OSError):
                    os.write(2, _SHOW_CURSOR)
            os._exit(code)
        if self.first is not None:
            return
        self.first = now
        if not stopping.request(error):
            raise error
        waiting = threading.Timer(_PATIENCE, self._lose_patience, (error,))
        waiting.daemon = True
        waiting.start()

    def _lose_patience(self, error: KeyboardInterrupt) -> None:
        """In a thread: if the step is still under way, end it where it is."""
        if stopping.is_wanted() and not self.over:
            self.late = error
            number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
            if os.name != "nt":
                signal.pthread_kill(threading.main_thread().ident or 0, number)


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


def going_on(store: Path) -> str:
    """Which runs a store keeps that are under way, to follow "the same command goes on"."""
    from gclip.results.checkpoints import checkpoint_files

    count = len(checkpoint_files(store))
    return f", from {count} {'checkpoint' if count == 1 else 'checkpoints'}" if count else ""


def tell(error: BaseException | None, message: str) -> int:
    """Say what ended a command, and what is not lost; the exit code.

    Args:
        error: the `KeyboardInterrupt`.
    """
    terminated = isinstance(error, Terminated)
    note(f"gclip: {'terminated' if terminated else 'interrupted'}: {message}")
    return TERMINATED if terminated else INTERRUPTED
