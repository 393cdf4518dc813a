"""Schedules: a tunable field that changes over a run, ``norm(max_norm=linear(1, 0.1))``.

A schedule stands where a number would. Before each step the clipper asks the strategy for its
copy at that step, whose fields are plain numbers; no strategy ever sees a schedule.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from gclip.core.numbers import as_number, as_whole, shown
from gclip.errors import UsageError, unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


def _linear(start: float, end: float, done: float) -> float:
    return start + (end - start) * done


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _exponential(start: float, end: float, done: float) -> float:
    return float(start * (end / start) ** done)


_SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "exponential": _exponential,
}


@dataclass(frozen=True)
class Schedule:
    """A number that goes from `start` to `end` in `steps` steps, and stays there.

    >>> import gclip
    >>> schedule = gclip.linear(1.0, 0.0, steps=11)
    >>> schedule.at(5, total=None), schedule.at(20, total=None)
    (0.5, 0.0)
    >>> str(gclip.create("norm", max_norm=schedule))
    'norm(max_norm=linear(1, 0, steps=11))'

    Attributes:
        shape: ``linear``, ``cosine`` (half a wave) or ``exponential`` (by equal factors).
        steps: by default all the steps of the run, which the trainer knows; in a loop of your own
            say ``Clipper(…, total_steps=N)``, or give `steps`.

    Raises:
        UsageError: an unknown shape, an end that is not a finite number, steps below 1, or an
            exponential schedule between numbers that are not both above 0.
    """

    shape: str
    start: float
    end: float
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            unknown("schedule", self.shape, tuple(_SHAPES))
        for what in ("start", "end"):
            value = as_number(getattr(self, what))
            if value is None or not math.isfinite(value):
                raise UsageError(
                    f"{self.shape}: {what} must be a finite number, but got "
                    f"{shown(getattr(self, what))}"
                )
            object.__setattr__(self, what, value)
        steps = None if self.steps is None else as_whole(self.steps)
        if self.steps is not None and (steps is None or steps < 1):
            raise UsageError(
                f"{self.shape}: steps must be a whole number ≥ 1, but got {shown(self.steps)}"
            )
        object.__setattr__(self, "steps", steps)
        if self.shape == "exponential" and min(self.start, self.end) <= 0:
            raise UsageError(
                f"exponential: start and end must be above 0, but got {self.start:g} and "
                f"{self.end:g}"
            )

    def at(self, step: int, total: int | None) -> float:
        """The value at `step` (from 0) of a run of `total` steps: `end` at the last one."""
        steps = self.steps if self.steps is not None else total
        if steps is None:
            raise UsageError(
                f"{self} does not say over how many steps: write {self.shape}({self.start:g}, "
                f"{self.end:g}, steps=1000), or Clipper(…, total_steps=1000)"
            )
        done = min(max(step / max(steps - 1, 1), 0.0), 1.0)
        if done == 1.0:
            return self.end
        return _SHAPES[self.shape](self.start, self.end, done)

    def __str__(self) -> str:
        steps = "" if self.steps is None else f", steps={self.steps}"
        return f"{self.shape}({number_text(self.start)}, {number_text(self.end)}{steps})"


SHAPES = tuple(_SHAPES)


def linear(start: float, end: float, steps: int | None = None) -> Schedule:
    """By equal differences.

    >>> import gclip
    >>> str(gclip.create("norm", max_norm=gclip.linear(2, 0.1)))
    'norm(max_norm=linear(2, 0.1))'
    """
    return Schedule("linear", start, end, steps)


def cosine(start: float, end: float, steps: int | None = None) -> Schedule:
    """Along half a cosine wave: slow at both ends."""
    return Schedule("cosine", start, end, steps)


def exponential(start: float, end: float, steps: int | None = None) -> Schedule:
    """By equal factors, between numbers above 0."""
    return Schedule("exponential", start, end, steps)


def varying(strategy: DataclassInstance) -> frozenset[str]:
    """The names of the fields that follow a schedule; of a copy made by `at_step`, too."""
    names = strategy.__dict__.get("_varying")
    if names is not None:
        return frozenset(names)
    return frozenset(
        f.name for f in fields(strategy) if isinstance(getattr(strategy, f.name), Schedule)
    )


def at_step(strategy: S, step: int, total: int | None) -> S:
    """The strategy as it is at `step`: itself where nothing follows a schedule."""
    names = varying(strategy)
    if not names or "_varying" in strategy.__dict__:
        return strategy
    values = {name: getattr(strategy, name).at(step, total) for name in names}
    return _with(strategy, names, values)


def ends_of(strategy: S) -> list[S]:
    """The strategy with plain numbers in every field: at the first and at the last step."""
    names = varying(strategy)
    if not names:
        return [strategy]
    return [
        _with(strategy, names, {name: getattr(getattr(strategy, name), end) for name in names})
        for end in ("start", "end")
    ]


def _with(strategy: S, names: frozenset[str], values: dict[str, Any]) -> S:
    resolved = copy.copy(strategy)  # its values were checked when the schedule was
    for name, value in values.items():
        object.__setattr__(resolved, name, value)
    object.__setattr__(resolved, "_varying", names)
    return resolved


def number_text(value: float) -> str:
    """``2`` for 2.0, ``0.1`` for 0.1."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)
