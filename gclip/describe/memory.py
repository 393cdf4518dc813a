"""What a strategy remembers, measured by running it, so that it is always true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from gclip.clipping.groups import Groups
from gclip.clipping.rules import decide, remember_step, transformed
from gclip.clipping.state import tensors_of
from gclip.core.schedules import at_step
from gclip.core.seen import Elements, Seen
from gclip.core.strategy import Memory, Strategy, Transform

_STEPS = 32  # after as many more, what has not stopped growing never will
_RING = 4  # more slots a group than this are called a ring


@dataclass(frozen=True)
class Footprint:
    """What a strategy keeps between steps.

    Attributes:
        words: ``none``, ``2 numbers a group``, ``ring of 100 norms a group``, …
        grows: whether it keeps more with every step.
        on_lenet: how many numbers that is for a LeNet (62,006 parameters); after 64 steps, where
            it grows.
        per_parameter: the same over LeNet's parameters.
    """

    words: str
    grows: bool
    on_lenet: int
    per_parameter: float


def footprint(strategy: Strategy) -> Footprint:
    """Run `strategy` for a few steps and look at its memory."""
    few, more = (_memory_after(strategy, size) for size in _sizes(strategy))
    grows = bool(few) and _count(few) > _count(_memory_after(strategy, _sizes(strategy)[0], 0))
    if grows:
        grows = _count(_memory_after(strategy, _sizes(strategy)[0], 2 * _STEPS)) > _count(few)
    numbers = _numbers_on(strategy, _lenet(), 2 * _STEPS if grows else 0)
    total = sum(math.prod(shape) for _, shape in _lenet())
    words = "every norm so far" if grows else _words(strategy, few, more)
    return Footprint(words, grows, numbers, numbers / total)


def _words(strategy: Strategy, few: Memory, more: Memory) -> str:
    if isinstance(strategy, Transform):
        return _transform_words(strategy, few, more)
    rings: list[int] = []
    each = shared = 0
    (small,), (large,) = _sizes(strategy)
    for a, b in zip(_entries(few), _entries(more), strict=True):
        ring = _ring(a, small)
        if ring:
            rings.append(ring)
            continue
        for one, other in zip(tensors_of(a), tensors_of(b), strict=True):
            slope = (other.numel() - one.numel()) // (large - small)
            each += slope
            shared += one.numel() - slope * small
    parts = [f"ring of {ring:,} norms a group" for ring in rings]
    if each:
        parts.append(f"{_numbers(each)} a group")
    if shared:
        parts.append(f"{_numbers(shared)} in all")
    return " + ".join(parts) or "none"


def _transform_words(strategy: Transform, few: Memory, more: Memory) -> str:
    """Counts that are linear in the elements, in the rows and columns of a matrix, or constant."""
    if strategy.view == "flat":
        (small,), (large,) = _sizes(strategy)
        slope = (_count(more) - _count(few)) / (large - small)
        rest = _count(few) - slope * small
        units: tuple[tuple[float, str], ...] = ((slope, "a parameter"), (rest, "a tensor"))
    else:
        rows, columns = _sizes(strategy)[0]
        base, tall, wide, both = (
            _count(_memory_after(strategy, size))
            for size in (
                (rows, columns), (rows + 1, columns), (rows, columns + 1), (rows + 1, columns + 1)
            )
        )  # fmt: skip
        area = both - tall - wide + base
        row, column = tall - base - area * columns, wide - base - area * rows
        rest = base - area * rows * columns - row * rows - column * columns
        units = (
            (area, "a parameter"), (row, "a row"), (column, "a column"), (rest, "a tensor"),
        )  # fmt: skip
    parts = [f"{_numbers(n)} {unit}" for n, unit in units if n]
    return " + ".join(parts) or "none"


def _ring(entry: Any, groups: int) -> int:
    """How many norms a group an entry holds, where it is a window of them; else 0."""
    widths = [t.shape[-1] for t in tensors_of(entry) if t.ndim > 1 and t.shape[-2] == groups]
    return max((width for width in widths if width > _RING), default=0)


def _numbers(count: float) -> str:
    return f"{count:g} number" if count == 1 else f"{count:g} numbers"


def _sizes(strategy: Strategy) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two sizes to compare: groups, elements, or rows and columns."""
    if isinstance(strategy, Transform) and strategy.view == "matrix":
        return (3, 4), (5, 7)
    return (3,), (5,)


def _memory_after(strategy: Strategy, size: Sequence[int], steps: int = _STEPS) -> Memory:
    """The memory of `strategy` after some steps in which every norm (or element) is near 1."""
    total = 4 * _STEPS
    now = at_step(strategy, 0, total)
    memory = now.remember(torch.zeros(*size, dtype=torch.float32))
    for step in range(steps):
        now = at_step(strategy, step, total)
        values = torch.full(tuple(size), 1.0 + 0.1 * (step % 3), dtype=torch.float32)
        if isinstance(now, Transform):
            each = Elements(values, step=step, weight=torch.ones_like(values), lr=1.0)
            memory = transformed(now, each, memory, None)[1]
            continue
        seen = Seen(
            values, step=step, weight_norm=torch.ones_like(values), size=torch.ones_like(values),
            lr=1.0, weight_decay=0.0, total_steps=total,
        )  # fmt: skip
        decision = decide(now, seen, memory)
        memory = remember_step(now, seen, decision.clipped_norm, memory, None)
    return memory


def _numbers_on(
    strategy: Strategy, parameters: tuple[tuple[str, torch.Size], ...], steps: int
) -> int:
    if isinstance(strategy, Transform):
        shapes = [shape for _, shape in parameters]
        if strategy.view == "flat":
            seen: list[tuple[int, ...]] = [(math.prod(shape),) for shape in shapes]
        else:
            seen = [(s[0], math.prod(s[1:])) for s in shapes if len(s) > 1]
        return sum(_count(_memory_after(strategy, size, steps)) for size in seen)
    names, shapes = [n for n, _ in parameters], [s for _, s in parameters]
    return _count(_memory_after(strategy, (Groups(names, shapes, strategy.scope).count,), steps))


@cache
def _lenet() -> tuple[tuple[str, torch.Size], ...]:
    from gclip.training.models import build

    return tuple((name, p.shape) for name, p in build("lenet").named_parameters())


def _entries(memory: Memory) -> list[Any]:
    return [memory[key] for key in sorted(memory)]


def _count(value: Any) -> int:
    return sum(tensor.numel() for tensor in tensors_of(value))
