"""Ctrl-C: a sentence about what is not lost, and the exit code that shells expect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from gclip.text.screen import note

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended."""


@contextmanager
def interruptible(message: Callable[[], str]) -> Iterator[None]:
    """End on Ctrl-C with exit code 130 and a `message` about what is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"gclip: interrupted: {message()}")
        raise typer.Exit(INTERRUPTED) from None
