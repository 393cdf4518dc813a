"""How and where runs are trained: one value, made once at the edge and handed on whole."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gclip.core.numbers import as_number, bounded, shown
from gclip.errors import UsageError
from gclip.execution.events import Listener, ignore
from gclip.execution.fleet_plan import FleetSize, read_fleet
from gclip.execution.machine import MOST_THREADS, workers_for

if TYPE_CHECKING:
    from gclip.training import Dataset, ProblemData


CHECKPOINT_EVERY = 120.0
"""Seconds of training between two checkpoints, and before the first: shorter runs write none."""
MOST_SEEDS = 100_000
"""In one comparison: more is a slip of the hand."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How and where runs are trained. But for the last bits of a result (`device`, `threads`,
    `fleet`) it decides nothing about them.

    Attributes:
        workers: runs at a time, each in a process of its own if there is more than one. None: one
            a core, or one on a GPU.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        data: the folder of the task's data, where the task needs one.
        dataset: the task's data, if it is loaded already; worker processes load their own.
        plugins: files or modules for the workers to load strategies, problems and models from.
        threads: for the computations of each run.
        fleet: how many runs of one shape are trained as one program, at most; ``auto`` for what is
            measured to be the fastest, ``off`` (kept as 1) for none.
        checkpoint_every: seconds of training between two checkpoints beside the store; 0 for one at
            every epoch's end, None for none.
        listener: is told everything that happens, in this thread.

    Raises:
        UsageError: when made, for a number of workers, a fleet or seconds that make no sense.
    """

    workers: int | None = None
    device: str = "auto"
    data: str | Path | None = None
    dataset: Dataset | ProblemData | None = field(default=None, repr=False)
    plugins: Iterable[str | Path] = ()
    threads: int = 1
    fleet: FleetSize | str = "off"
    checkpoint_every: float | None = CHECKPOINT_EVERY
    listener: Listener = field(default=ignore, repr=False)

    def __post_init__(self) -> None:
        workers_for("cpu", self.workers)  # a wrong number is told before anything begins
        bounded("threads", self.threads, MOST_THREADS)
        object.__setattr__(self, "checkpoint_every", read_seconds(self.checkpoint_every))
        object.__setattr__(self, "plugins", tuple(str(plugin) for plugin in self.plugins))
        object.__setattr__(self, "fleet", read_fleet(self.fleet))

    @property
    def processes(self) -> int:
        """How many runs train at once; the device must have been chosen (`resolved`)."""
        return workers_for(self.device, self.workers)

    def resolved(self, most: int | None = None) -> Execution:
        """The same with the device chosen, and with so many workers as there will be.

        Args:
            most: no more workers than that, the number of runs to be trained.

        Raises:
            UsageError: this machine has no such device.
        """
        from gclip.training import resolve_device

        device = str(resolve_device(self.device))
        workers = workers_for(device, self.workers)
        workers = workers if most is None else min(workers, most)
        return dataclasses.replace(self, device=device, workers=workers)


def read_seconds(value: float | str | None) -> float | None:
    """What ``--checkpoint-every`` says: seconds, or None for ``off``.

    Raises:
        UsageError: it is something else.
    """
    if value is None or value == "off":
        return None
    seconds = as_number(value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            seconds = float(value)
    if seconds is None or not 0 <= seconds < math.inf:
        raise UsageError(
            f"checkpoint_every must be seconds ≥ 0 or off, but got {shown(value)}; 0 saves at "
            "every epoch's end"
        )
    return seconds
