"""What a benchmark measures now, without taking part in what is measured."""

from __future__ import annotations

import sys
import threading
import time
from typing import Self

from gclip.text import screen
from gclip.text.progress import time_left
from gclip.text.time_left import TimeLeft


class BenchProgress:
    """Says what is measured next, a line each; in a terminal also for how long, once a second.

    That is all that moves: one short write a second, of some microseconds, so as not to take part
    in what is measured. A context manager; called with what is measured next.

    Args:
        total: how many things there are, where that is known: then it says how long they take.
        before: what is done before anything is measured.
    """

    def __init__(self, total: int | None = None, before: str = "") -> None:
        self._total, self._place, self._time = total, -1, TimeLeft()
        self._before, self._moves = before, sys.stderr.isatty()
        self._began, self._over = time.monotonic(), threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        if self._before:
            screen.note(self._before)
        if self._moves:
            self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._moves:
            self._clock.join()
            self._write("")

    def __call__(self, what: str) -> None:
        """From now on `what` is measured."""
        self._time.ends(self._place)
        self._place += 1
        line = f"measuring {what}"
        if self._total is not None:
            line += f", {self._place + 1} of {self._total}"
            left = self._time.left(self._total - self._place)
            line += "" if left is None else f" · {time_left(left)}"
        if self._moves:
            self._write("")
        screen.note(line)
        self._began = time.monotonic()
        self._time.starts(self._place, ())

    def _tick(self) -> None:
        while not self._over.wait(1.0):
            self._write(screen.duration(time.monotonic() - self._began))

    def _write(self, text: str) -> None:
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
