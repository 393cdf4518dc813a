"""How far one thing after another is: the seeds of a survey, the strategies of a check."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gclip.execution.progress import epoch_text
from gclip.text.progress import TICK, Display, time_left
from gclip.text.time_left import Estimate, TimeLeft

if TYPE_CHECKING:
    from gclip.training import Progress


class StepsDisplay(Display):
    """One thing after another, each in steps: the seeds of a survey, the strategies of a check.

    Args:
        total: how many things.
        then: what comes after the last, which the time left is without: ``figures``.
        silent: as `Display`.
    """

    def __init__(self, total: int = 1, then: str = "", *, silent: bool = False) -> None:
        super().__init__(silent=silent)
        self.total = total
        self._then, self._what, self._detail = then, "", ""
        self._time, self._place, self._share, self._seen = TimeLeft(), -1, 0.0, 0.0

    def begin(self, what: str) -> None:
        """The next thing begins; the last, if there was one, has ended."""
        with self._lock:
            self.end()
            self._place += 1
            self._what, self._detail, self._share = what, "", 0.0
            self._time.starts(self._place, ())
            self.doing("")
            self._refresh()

    def end(self) -> None:
        """The thing that was begun has ended."""
        with self._lock:
            self._time.ends(self._place)
            self._what = ""

    def update(self, step: int, steps: int, detail: str = "") -> None:
        """So many of its steps are done; looked at some times a second."""
        now = time.monotonic()
        if now - self._seen < TICK and step < steps:
            return
        with self._lock:
            self._seen, self._share, self._detail = now, step / max(1, steps), detail
            self._time.advances(self._place, self._share)
            self._refresh()

    def train(self, progress: Progress) -> None:
        """The listener of a run."""
        self.update(progress.step, progress.steps, epoch_text(progress))

    def summary(self) -> str:
        """``watching seed 0 · epoch 2 of 5 · loss 0.3 · about 0:40 left``."""
        if not self._what:
            return ""
        parts = [self._what, *([self._detail] if self._detail else [])]
        left = self._seconds_left()
        if left is not None:
            parts.append(time_left(left, self._then))
        return " · ".join(parts)

    def _progress(self) -> tuple[float, float | None]:
        return max(0, self._place) + self._share, self.total

    def _seconds_left(self) -> Estimate | None:
        return self._time.left(self.total - self._place - 1) if self._what else None
