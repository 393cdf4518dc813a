"""What all fuzz tests share: how many examples, how long one may take, what a refusal looks like.

An example is right if it works, or if it is refused by a `UsageError` in a sentence. Everything
else, and whatever takes too long, is a fault.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, Phase, settings

from gclip.errors import UsageError

LONGEST = 60.0
"""Seconds that one example may take; most take a thousandth of one."""


AS_DRILL = bool(os.environ.get("GCLIP_DRILLS"))


def bounded(examples: int, *, drill: int) -> Any:
    """So many examples, or `drill` where drills are run; the same ones at every run."""
    return settings(
        max_examples=drill if AS_DRILL else examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


class Hang(BaseException):
    """An example took too long; no ``except Exception`` stops it."""


@contextmanager
def in_time(what: object) -> Iterator[None]:
    """Raise `Hang` within, if it takes too long; where there is no such alarm, nothing is done."""
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def ring(*_: Any) -> None:
        raise Hang(f"longer than {LONGEST:g} s: {what!r}")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def refused_or_right(what: object) -> Iterator[None]:
    """What is within works in time, or is refused in a sentence."""
    with in_time(what):
        try:
            yield
        except UsageError as error:
            check_sentence(str(error))


def check_sentence(text: str) -> None:
    """A refusal says something, in words that a terminal can show."""
    assert len(text.split()) >= 3, text
    assert len(text) < 4000, f"{len(text)} letters: {text[:200]}"
