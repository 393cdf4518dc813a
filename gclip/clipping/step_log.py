"""What clipping does, told to a logger while training goes on, without waiting for a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from gclip.clipping.async_copy import AsyncCopy
from gclip.clipping.record import COLUMNS, Record
from gclip.clipping.report import NUMBERS, ClipReport
from gclip.errors import UsageError


@runtime_checkable
class ScalarWriter(Protocol):
    """What ``torch.utils.tensorboard.SummaryWriter`` is, as far as this is concerned."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Write one number."""


Write: TypeAlias = Callable[[int, Mapping[str, float]], object]
LogTarget: TypeAlias = ScalarWriter | Write


class StepLog:
    """Tells a target every so many steps what clipping does; made by `gclip.Clipper.log_to`.

    Args:
        target: a SummaryWriter, or any function of (step, numbers by name).
        every: so many steps.
        record: of the clipper.

    Raises:
        UsageError: another target, or `every` is no whole number ≥ 1.
    """

    def __init__(self, target: LogTarget, every: int, record: Record) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise UsageError(f"every must be a whole number ≥ 1, but got {every!r}")
        self._write, self._every = _writer(target), every
        self._since = 0
        self._sent: deque[tuple[int, AsyncCopy]] = deque()
        self._record = record

    def note(self, step: int, report: ClipReport) -> None:
        """A step is complete, the `step`-th; tell of it if it is its turn."""
        self._since += 1
        if step % self._every == 0:
            self._sent.append((step, AsyncCopy(recent_numbers(report, self._record, self._since))))
            self._since = 0
        while self._sent and self._sent[0][1].ready:
            self._tell()

    def flush(self) -> None:
        """Tell what is on its way from a GPU; waits for it."""
        while self._sent:
            self._tell()

    def _tell(self) -> None:
        step, numbers = self._sent.popleft()
        self._write(step, dict(zip(NUMBERS, numbers.values(), strict=True)))


@torch.no_grad()
def recent_numbers(report: ClipReport, record: Record, steps: int) -> Tensor:
    """`ClipReport.numbers` of the latest step, the two shares as means of the latest `steps`."""
    numbers = report.numbers()
    rows = record.last(steps).to(numbers.device, numbers.dtype)
    if len(rows) > 1:
        for name, column in (("clip_rate", "clipped"), ("skipped", "skipped")):
            numbers[NUMBERS.index(name)] = rows[:, COLUMNS.index(column)].mean()
    return numbers


def _writer(target: LogTarget) -> Write:
    if isinstance(target, ScalarWriter):

        def write(step: int, numbers: Mapping[str, float]) -> None:
            for name, value in numbers.items():
                target.add_scalar(f"clip/{name}", value, step)

        return write
    if callable(target):
        return target
    raise UsageError(
        "log_to takes a SummaryWriter, or a function of (step, numbers by name), but got "
        f"{type(target).__name__}"
    )
