"""What a person sees while a command works: what it does now, a line for each run, the time left.

In a terminal the lines move; in a file there is a plain line now and then. All of it goes to
stderr, so that the answer on stdout can be piped on.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gclip.cli import screen
from gclip.cli.time_left import Estimate, TimeLeft

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from gclip.execution import Event
    from gclip.training import Progress, RunConfig

_PLAIN_SECONDS = 10.0
_PLAIN_SHARE = 0.1
_QUIET = 0.5
_TICK = 0.25
_LINES = 12
_STARTING = "starting the first runs"


class Display:
    """What a command does now. A context manager; outside of it nothing is shown.

    In a terminal it is a line that moves as long as the command lives. In a file a line is written
    for whatever takes longer than half a second, and again every ten seconds.
    """

    def __init__(self) -> None:
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
        while not self._over.wait(_TICK):
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
        if line:
            self._console.print(line, soft_wrap=True)


def load(*modules: str) -> None:
    """Import what takes seconds, under the eyes of a `Display`."""
    if not all(name in sys.modules for name in modules):
        with Display() as display:
            display.load(*modules)


class StepsDisplay(Display):
    """One thing after another, each in steps: the seeds of a survey, the strategies of a check.

    Args:
        total: how many things.
        then: what comes after the last, which the time left is without: ``figures``.
    """

    def __init__(self, total: int = 1, then: str = "") -> None:
        super().__init__()
        self.total = total
        self._then, self._what, self._said = then, "", ""
        self._time, self._place, self._share, self._seen = TimeLeft(), -1, 0.0, 0.0

    def begin(self, what: str) -> None:
        """The next thing begins; the last, if there was one, has ended."""
        with self._lock:
            self.end()
            self._place += 1
            self._what, self._said, self._share = what, "", 0.0
            self._time.starts(self._place, ())
            self.doing("")
            self._refresh()

    def end(self) -> None:
        """The thing that was begun has ended."""
        with self._lock:
            self._time.ends(self._place)
            self._what = ""

    def update(self, step: int, steps: int, said: str = "") -> None:
        """So many of its steps are done; looked at some times a second."""
        now = time.monotonic()
        if now - self._seen < _TICK and step < steps:
            return
        with self._lock:
            self._seen, self._share, self._said = now, step / max(1, steps), said
            self._time.advances(self._place, self._share)
            self._refresh()

    def train(self, progress: Progress) -> None:
        """The listener of a run."""
        self.update(progress.step, progress.steps, _said(progress))

    def summary(self) -> str:
        """``watching seed 0 · epoch 2 of 5 · loss 0.3 · about 0:40 left``."""
        if not self._what:
            return ""
        parts = [self._what, *([self._said] if self._said else [])]
        left = self._seconds_left()
        if left is not None:
            parts.append(time_left(left, self._then))
        return " · ".join(parts)

    def _progress(self) -> tuple[float, float | None]:
        return max(0, self._place) + self._share, self.total

    def _seconds_left(self) -> Estimate | None:
        return self._time.left(self.total - self._place - 1) if self._what else None


class RunsDisplay(Display):
    """Listens to the events of `total` runs; a context manager, and itself the listener.

    `total` may be set later, when it is known; `then` is as that of `StepsDisplay`.
    """

    def __init__(self, total: int = 0, noun: str = "run", then: str = "") -> None:
        super().__init__()
        self.total = total
        self._noun, self._then = noun, then
        self._states: Counter[str] = Counter()
        self._shares: dict[int, float] = {}
        self._notes: set[str] = set()
        self._lines: dict[int, TaskID] = {}
        self._time = TimeLeft()
        self._plain_done = 0

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._count(event)
            if self._bars is not None:
                self._draw(event)
            if event.kind == "failed" or (event.kind == "retried" and event.message):
                what = f"{event.config.strategy} seed {event.config.seed}: {event.message}"
                self._print(f"{event.kind}: {what}")
            if event.kind == "note" and event.message not in self._notes:
                self._notes.add(event.message)
                self._print(event.message)
            self._refresh()

    @property
    def ended(self) -> int:
        """Runs that need nothing more, whether trained or read."""
        return sum(self._states[state] for state in ("cached", "done", "failed"))

    @property
    def kept(self) -> int:
        """Runs that the store holds for good."""
        return self._states["cached"] + self._states["done"]

    @property
    def trained(self) -> int:
        """Runs that were trained just now, whatever became of them."""
        return self._states["done"] + self._states["failed"]

    @property
    def read(self) -> int:
        """Runs that were in the store already."""
        return self._states["cached"]

    def summary(self) -> str:
        """``12 of 50 runs · 2 running · 3 diverged · about 0:40 left``."""
        if not self.total:
            return ""
        parts = [f"{self.ended} of {screen.plural(self.total, self._noun)}"]
        if self._shares:
            parts.append(f"{len(self._shares)} running")
        parts += [
            f"{self._states[state]} {name}"
            for state, name in (
                ("cached", "read"),
                ("diverged", "diverged"),
                ("retried", "started again"),
                ("failed", "failed"),
            )
            if self._states[state]
        ]
        left = self._seconds_left()
        if left is not None:
            parts.append(time_left(left, self._then))
        return " · ".join(parts)

    def _seconds_left(self) -> Estimate | None:
        if self.ended >= self.total or not self._shares:
            return None
        told = self._states["queued"] + self._states["cached"]
        return self._time.left(unknown=max(0, self.total - told))

    def _progress(self) -> tuple[float, float | None]:
        return self.ended + sum(self._shares.values()), self.total or None

    def _count(self, event: Event) -> None:
        index, kind = event.index, event.kind
        if kind in ("cached", "done", "failed", "retried"):
            self._states[kind] += 1
            self._shares.pop(index, None)
            self._time.ends(index, again=kind == "retried")
        if kind in ("cached", "done") and event.result is not None:
            self._states["diverged"] += event.result.status == "diverged"
        if kind == "doing":
            self.doing(event.message or _STARTING)
        if kind == "queued":
            self._states["queued"] += 1
            self._time.waits(_alike(event.config))
            if not self._shares and not self.trained and not self._doing:
                self.doing(_STARTING)
        if kind == "started":
            self._shares[index] = 0.0
            self._time.starts(index, _alike(event.config))
            self.doing("")
        if kind == "progress" and event.progress is not None:
            self._shares[index] = event.progress.step / max(1, event.progress.steps)
            self._time.advances(index, self._shares[index])

    def _draw(self, event: Event) -> None:
        bars, index = self._bars, event.index
        if bars is None:
            return
        if event.kind in ("started", "progress") and index not in self._lines:
            if len(self._lines) >= _LINES:  # fleets have more runs under way than a screen lines
                return
            name = f"{event.config.strategy} seed {event.config.seed}"
            self._lines[index] = bars.add_task(name, total=1.0, said="starting")
        if event.kind == "progress" and event.progress is not None:
            bars.update(
                self._lines[index], completed=self._shares[index], said=_said(event.progress)
            )
        if event.kind in ("done", "failed", "retried") and index in self._lines:
            bars.remove_task(self._lines.pop(index))

    def _far(self) -> bool:
        if super()._far():
            return True
        return self.trained - self._plain_done >= max(1, _PLAIN_SHARE * self.total)

    def _said_plainly(self) -> None:
        super()._said_plainly()
        self._plain_done = self.trained


def _alike(config: RunConfig) -> tuple[str, str]:
    """Runs with the same strategy and learning rate last as long, whether they train or diverge."""
    return f"{config.strategy} lr {config.lr:g}", config.strategy.partition("(")[0]


def _said(now: Progress) -> str:
    said = f"epoch {min(now.epoch + 1, now.epochs)} of {now.epochs}"
    if now.loss is not None:
        said += f" · loss {now.loss:.3g}"
    if now.accuracy is not None:
        said += f" · {screen.percent(now.accuracy)} %"
    return said


def time_left(estimate: Estimate, then: str = "") -> str:
    """``about 0:40 left, then figures``; ``0:30 to 2:00 left``."""
    low, high = _rounded(estimate.low), _rounded(estimate.high)
    said = f"about {high} left" if low == high else f"{low} to {high} left"
    return f"{said}, then {then}" if then else said


def _rounded(seconds: float) -> str:
    """No more digits than an estimate is worth."""
    step = 1 if seconds < 15 else 5 if seconds < 120 else 15 if seconds < 600 else 60
    return screen.duration(step * max(1, round(seconds / step)))
