"""How far many runs are: a line for each that is under way, how they ended, the time left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gclip.execution.events import Event
from gclip.results.metric_text import score_with_unit
from gclip.text import screen
from gclip.text.progress import Display, time_left
from gclip.text.time_left import Estimate, TimeLeft

if TYPE_CHECKING:
    from rich.progress import TaskID

    from gclip.training import Progress, RunConfig

_PLAIN_SHARE = 0.1
_LINES = 12
_STARTING = "starting the first runs"


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
        """Take an event into account, and draw it."""
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
    def stored(self) -> int:
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
                self._lines[index], completed=self._shares[index], said=epoch_text(event.progress)
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


def epoch_text(now: Progress) -> str:
    """``epoch 2 of 5 · loss 0.3 · 91.2 %``; another metric is named: ``perplexity 31.2``."""
    said = f"epoch {min(now.epoch + 1, now.epochs)} of {now.epochs}"
    if now.loss is not None:
        said += f" · loss {now.loss:.3g}"
    if now.score is not None:
        name = "" if now.metric.unit == "%" else f"{now.metric.name} "
        said += f" · {name}{score_with_unit(now.metric, now.score)}"
    return said
