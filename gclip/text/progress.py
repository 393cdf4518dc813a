"""What a person sees while a command works: what it does now, a line for each run, the time left.

In a terminal the lines move; in a file there is a plain line now and then. All of it goes to
stderr, so that the answer on stdout can be piped on.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gclip.text import screen
from gclip.text.streams import printable
from gclip.text.time_left import Estimate

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_PLAIN_SECONDS = 10.0
_QUIET = 0.5
TICK = 0.25
"""Seconds between two looks at how far the work is."""


class Display:
    """What a command does now. A context manager; outside of it nothing is shown.

    In a terminal it is a line that moves as long as the command lives. In a file a line is written
    for whatever takes longer than half a second, and again every ten seconds.

    Args:
        silent: whether nothing is shown at all, because another process shows it.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._console = screen.console(stderr=True)
        self._bars: Bars | None = None
        self._overall: TaskID | None = None
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None
        self._doing, self._doing_said = "", True
        self._estimated = False  # whether a plain line has said how long it takes
        self._doing_since = self._plain_time = time.monotonic()

    def __enter__(self) -> Self:
        if self._silent:
            return self
        if self._console.is_terminal:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            self._bars = Progress(
                SpinnerColumn(finished_text=" "),
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[said]}"),
                console=self._console,
                transient=True,
            )
            self._overall = self._bars.add_task("", total=None, said="")
            self._bars.start()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._bars is not None:
            self._bars.stop()

    def doing(self, what: str) -> None:
        """From now on the command does this, until something else is said or a run begins."""
        with self._lock:
            if what != self._doing:
                self._doing, self._doing_since = what, time.monotonic()
                self._doing_said = not what
                self._refresh()

    def say(self, line: str) -> None:
        """A line that stays, about something that the answer does not tell."""
        with self._lock:
            self._print(line)

    def load(self, *modules: str) -> None:
        """Import what takes seconds, and say so first: while it is imported no thread may speak."""
        for name in modules:
            if name not in sys.modules:
                self.doing(f"loading {name}")
                self._say_doing()
                importlib.import_module(name)

    def summary(self) -> str:
        """How far it is, in a line."""
        return self._doing

    def _progress(self) -> tuple[float, float | None]:
        """What is done, and of how much; for the bar."""
        return 0, None

    def _tick(self) -> None:
        """Another thread's work: to speak while the main one is busy."""
        while not self._over.wait(TICK):
            with self._lock:
                self._refresh()

    def _refresh(self) -> None:
        if self._bars is not None and self._overall is not None:
            if self._doing:
                self._bars.update(self._overall, description=self._doing, total=None, said="")
                return
            done, total = self._progress()
            head, _, rest = self.summary().partition(" · ")
            self._bars.update(
                self._overall, description=head, total=total, completed=done, said=rest
            )
            return
        if self._ticker is None:
            return
        now = time.monotonic()
        if not self._doing_said and now - self._doing_since >= _QUIET:
            self._say_doing()
        elif now - self._plain_time >= _PLAIN_SECONDS or self._far():
            self._said_plainly()
            self._print(self._doing or self.summary())

    def _far(self) -> bool:
        """Whether enough has happened for a plain line before its time: a first estimate."""
        if not self._estimated and self._seconds_left() is not None:
            self._estimated = True
            return True
        return False

    def _seconds_left(self) -> Estimate | None:
        """Until all has ended that can be foretold; None where nothing can."""
        return None

    def _said_plainly(self) -> None:
        self._plain_time = time.monotonic()

    def _say_doing(self) -> None:
        if self._bars is None and not self._doing_said:
            self._doing_said, self._plain_time = True, time.monotonic()
            self._print(self._doing)

    def _print(self, line: str) -> None:
        if line and not self._silent:
            self._console.print(printable(line), soft_wrap=True)


def load(*modules: str) -> None:
    """Import what takes seconds, under the eyes of a `Display`."""
    if not all(name in sys.modules for name in modules):
        with Display() as display:
            display.load(*modules)


def time_left(estimate: Estimate, then: str = "") -> str:
    """``about 0:40 left, then figures``; ``0:30 to 2:00 left``."""
    low, high = _rounded(estimate.low), _rounded(estimate.high)
    text = f"about {high} left" if low == high else f"{low} to {high} left"
    return f"{text}, then {then}" if then else text


def _rounded(seconds: float) -> str:
    """No more digits than an estimate is worth."""
    step = 1 if seconds < 15 else 5 if seconds < 120 else 15 if seconds < 600 else 60
    return screen.duration(step * max(1, round(seconds / step)))
