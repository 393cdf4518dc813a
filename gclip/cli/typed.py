"""What was typed: a study and a report say which command repeats them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_TYPED: ContextVar[str] = ContextVar("_TYPED", default="")


@contextmanager
def typed(arguments: Sequence[str]) -> Iterator[None]:
    """Within the block these are the arguments of ``gclip``."""
    token = _TYPED.set(shlex.join(["gclip", *arguments]))
    try:
        yield
    finally:
        _TYPED.reset(token)


def command() -> str:
    """The command of now, as a shell takes it; empty outside of one."""
    return _TYPED.get()
