"""What a person sees while runs are made: a line for each run under way, states, time left.

In a terminal the lines move; in a file there is a plain line now and then. All of it goes to
stderr, so that the answer on stdout can be piped on.
"""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gclip.cli import screen

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from gclip.running import Event

_PLAIN_SECONDS = 10.0
_PLAIN_SHARE = 0.1
_LINES = 12


class RunsDisplay:
    """Listens to the events of `total` runs; a context manager, and itself the listener."""

    def __init__(self, total: int, noun: str = "run") -> None:
        self.total = total
        self._noun = noun
        self._began = time.monotonic()
        self._states: Counter[str] = Counter()
        self._shares: dict[int, float] = {}
        self._notes: set[str] = set()
        self._lines: dict[int, TaskID] = {}
        self._bars: Bars | None = None
        self._overall: TaskID | None = None
        self._console = screen.console(stderr=True)
        self._plain_time, self._plain_done = self._began, 0

    def __enter__(self) -> Self:
        if not self._console.is_terminal:
            return self
        from rich.progress import BarColumn, Progress, TextColumn

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[said]}"),
            console=self._console,
            transient=True,
        )
        self._overall = self._bars.add_task("", total=self.total, said="")
        self._bars.start()
        self._refresh()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, event: Event) -> None:
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
        """``12 of 50 runs · 2 running · 3 diverged · 0:40 left``."""
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
        if left is not None and self.ended < self.total:
            parts.append(f"about {screen.duration(left)} left")
        return " · ".join(parts)

    def _count(self, event: Event) -> None:
        index = event.index
        if event.kind in ("cached", "done", "failed", "retried"):
            self._states[event.kind] += 1
            self._shares.pop(index, None)
        if event.kind in ("cached", "done") and event.result is not None:
            self._states["diverged"] += event.result.status == "diverged"
        if event.kind == "started":
            self._shares[index] = 0.0
        if event.kind == "progress" and event.progress is not None:
            self._shares[index] = event.progress.step / max(1, event.progress.steps)

    def _seconds_left(self) -> float | None:
        """From the pace so far, half-done runs counted by their share."""
        made = self.trained + sum(self._shares.values())
        if made < 0.2:
            return None
        left = self.total - self.read - made
        return left * (time.monotonic() - self._began) / made

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
            now = event.progress
            said = f"epoch {min(now.epoch + 1, now.epochs)} of {now.epochs}"
            if now.loss is not None:
                said += f" · loss {now.loss:.3g}"
            if now.accuracy is not None:
                said += f" · {screen.percent(now.accuracy)} %"
            bars.update(self._lines[index], completed=self._shares[index], said=said)
        if event.kind in ("done", "failed", "retried") and index in self._lines:
            bars.remove_task(self._lines.pop(index))

    def _refresh(self) -> None:
        if self._bars is not None and self._overall is not None:
            head, _, rest = self.summary().partition(" · ")
            self._bars.update(self._overall, description=head, completed=self.ended, said=rest)
            return
        now = time.monotonic()
        due = now - self._plain_time >= _PLAIN_SECONDS
        far = self.trained - self._plain_done >= max(1, _PLAIN_SHARE * self.total)
        if due or far:
            self._plain_time, self._plain_done = now, self.trained
            self._print(self.summary())

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)
