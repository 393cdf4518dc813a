"""What a strategy does to a few norms: the quickest way to see what its equation means."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gclip.clipping.simulation import simulate
from gclip.core.strategy import Strategy, Transform
from gclip.describe.parameters import number as number
from gclip.describe.strategies import describe
from gclip.errors import UsageError

NORMS = (1.0, 2.0, 3.0, 2.0, 2.0, 10.0, 2.0, 2.0, 0.5)
"""Mostly near 2, with one spike and one small one."""

_SHORT = 3
"""How many steps a warm-up has in an example of nine."""

_WAITS = ("warm", "start", "after", "min_", "delay", "burn")
"""How the names of whole-numbered settings begin that make a strategy wait for some steps."""


@dataclass(frozen=True)
class Example:
    """A sequence of norms and what became of it.

    Attributes:
        strategy: what was run, which differs from what was asked for by `shortened`.
        norms, limits, left: one entry a step; `limits` is None for a strategy without one.
        first: the number of the first step shown; those before it saw the same norms over and over.
        shortened: settings that were made smaller, so that something shows: name to (was, is).
    """

    strategy: Strategy
    norms: tuple[float, ...]
    limits: tuple[float, ...] | None
    left: tuple[float, ...]
    first: int
    shortened: dict[str, tuple[int, int]]

    @property
    def factors(self) -> tuple[float, ...]:
        """What each norm was multiplied by; 1 for zero."""
        return tuple(
            left / norm if norm else 1.0 for norm, left in zip(self.norms, self.left, strict=True)
        )

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "strategy": str(self.strategy),
            "norms": list(self.norms),
            "limits": None if self.limits is None else list(self.limits),
            "left": list(self.left),
            "first_step": self.first,
            "shortened": {name: {"was": a, "is": b} for name, (a, b) in self.shortened.items()},
        }


def example(strategy: Strategy, norms: Sequence[float] | None = None) -> Example:
    """Run `strategy` on `norms`; by default on `NORMS`, so that something is to be seen.

    That is: twice, where it remembers, with short warm-ups; and if it has done nothing by then,
    with a spike of 100, or after 64 rounds. Of one group with one element, weights of norm 1, and a
    learning rate of 1.
    """
    if norms is not None:
        return _run(strategy, tuple(norms), len(norms), {})
    strategy, shortened = _shorten(strategy)
    remembers = strategy.warmup > 0 or describe(type(strategy)).memory.words != "none"
    tries = []
    for rounds in (2, 64) if remembers else (1,):
        for spike in (max(NORMS), 10 * max(NORMS)):
            last = tuple(spike if norm == max(NORMS) else norm for norm in NORMS)
            shown = len(NORMS) * min(rounds, 2)
            ran = _run(strategy, NORMS * (rounds - 1) + last, shown, shortened)
            if ran.left != ran.norms:
                return ran
            tries.append(ran)
    return tries[0]


def _run(
    strategy: Strategy,
    norms: tuple[float, ...],
    shown: int,
    shortened: dict[str, tuple[int, int]],
) -> Example:
    """The last `shown` of the `norms`."""
    limits, left = simulate(strategy, norms)
    last = slice(len(norms) - shown, None)
    # In float32, as in training: what came out as it went in is not shown as changed.
    before = torch.tensor(norms[last], dtype=torch.float32).tolist()
    after = left.flatten().tolist()[last]
    return Example(
        strategy,
        norms[last],
        None if isinstance(strategy, Transform) else tuple(limits.flatten().tolist()[last]),
        tuple(
            norm if was == now else now
            for norm, was, now in zip(norms[last], before, after, strict=True)
        ),
        len(norms) - shown,
        shortened,
    )


def _shorten(strategy: Strategy) -> tuple[Strategy, dict[str, tuple[int, int]]]:
    """The strategy with warm-ups of a few steps, where it can do with them."""
    shortened: dict[str, tuple[int, int]] = {}
    shorter: Any = strategy
    for field in dataclasses.fields(strategy):
        value = getattr(strategy, field.name)
        if type(value) is not int or value <= _SHORT or not field.name.startswith(_WAITS):
            continue
        try:
            shorter = dataclasses.replace(shorter, **{field.name: _SHORT})
        except UsageError:
            continue  # it needs so many steps
        shortened[field.name] = (value, _SHORT)
    return shorter, shortened
