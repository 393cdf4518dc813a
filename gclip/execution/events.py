"""What happens to a run while many runs are made: the one vocabulary of pools and displays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gclip.training import Progress, RunConfig, RunResult

EventKind = Literal[
    "cached", "queued", "started", "progress", "retried", "done", "failed", "note", "doing"
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to one run.

    ``cached`` (it was in the store), ``queued``, ``started``, ``progress`` (with `progress`),
    ``retried`` (its worker died, or its fleet raised; `message` says how, for the first of a
    fleet), and at the end ``done`` (finished, diverged or pruned) or ``failed``, with `result`.
    A ``note`` is about many runs, this one among them: its `message` says how they are trained.
    ``doing`` is about many runs, too: what has to be done before they can begin;
    "" when that has ended.

    `index` is the run's place in the list that was asked for.
    """

    kind: EventKind
    index: int
    config: RunConfig
    progress: Progress | None = None
    result: RunResult | None = None
    message: str = ""


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of those who do not want to know."""
