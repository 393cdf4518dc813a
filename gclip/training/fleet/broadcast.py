"""What many strategies decided, applied to the stacks in one pass.

Each batch of runs leaves its factors (or its bounds, for a clamp); they are laid side by side in
one table, ``(runs, tensors)`` or ``(runs, units)``, whose columns broadcast against the stacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gclip.clipping.norms import clamp_modulus
from gclip.clipping.units import Units
from gclip.core.host import on_host
from gclip.training.fleet.stacked_groups import StackedParameters

Spans: TypeAlias = list[tuple[int, int] | None]


class BroadcastTable:
    """One number for each run and tensor (or unit), `neutral` unless `put` says otherwise."""

    def __init__(
        self, layout: StackedParameters, runs: int, device: torch.device, dtype: torch.dtype,
        neutral: float, *, fine: bool,
    ) -> None:  # fmt: skip
        counts = layout.units if fine else [1] * len(layout.names)
        self.values = torch.full((runs, sum(counts)), neutral, dtype=dtype, device=device)
        self.runs, self._neutral = runs, neutral
        self._starts = np.cumsum([0, *counts[:-1]])
        self._parts: list[Units | None] = [*layout.parts] if fine else [None] * len(counts)
        shapes = [(1,) * len(shape) for shape in layout.shapes]
        if fine:
            shapes = [part.column for part in layout.parts]
        self.columns = [  # views, so that they follow what is put into the table
            column.view(runs, *shape)
            for column, shape in zip(torch.split(self.values, counts, dim=1), shapes, strict=True)
        ]

    def view(self, place: int, stack: Tensor) -> Tensor:
        """The stack at a place, sharing memory, with the dimensions that its column has."""
        part = self._parts[place]
        return stack if part is None else part.view(stack, 1)

    def clear(self) -> None:
        self.values.fill_(self._neutral)

    def changed(self) -> Spans | None:
        """For each tensor, the first and last + 1 of the runs that are not neutral, or None.

        None in place of the list where the host cannot tell.
        """
        if not on_host(self.values):
            return None
        beyond: npt.NDArray[np.bool_] = np.logical_or.reduceat(
            self.values.numpy() != self._neutral, self._starts, axis=1
        )
        some = np.any(beyond, axis=0)
        first = beyond.argmax(axis=0)
        last = self.runs - beyond[::-1].argmax(axis=0)
        spans = zip(some.tolist(), first.tolist(), last.tolist(), strict=True)
        return [(start, end) if any_ else None for any_, start, end in spans]


class Tables:
    """The tables of a fleet, made when first needed: factors, lower and upper bounds."""

    def __init__(self, layout: StackedParameters, runs: int) -> None:
        self._layout, self._runs = layout, runs
        self._made: dict[tuple[float, bool, torch.device, torch.dtype], BroadcastTable] = {}

    def cleared(
        self, neutral: float, *, fine: bool, device: torch.device, dtype: torch.dtype
    ) -> BroadcastTable:
        """The table with `neutral` everywhere, for each tensor or (`fine`) for each unit."""
        key = (neutral, fine, device, dtype)
        if key not in self._made:
            self._made[key] = BroadcastTable(
                self._layout, self._runs, device, dtype, neutral, fine=fine
            )
        else:
            self._made[key].clear()
        return self._made[key]


def multiply(tensors: Sequence[Tensor | None], table: BroadcastTable) -> None:
    """Multiply each stack by its factors; on a CPU, only the runs that any factor changes."""
    there, factors = _affected(tensors, table, table.changed())
    if there:
        torch._foreach_mul_(there, factors)


def clamp(tensors: Sequence[Tensor | None], low: BroadcastTable, high: BroadcastTable) -> None:
    """Cut each element to its bounds; NaN stays NaN. Complex ones by modulus, their phase kept."""
    changed = _either(low.changed(), high.changed())
    there, highs = _affected(tensors, high, changed)
    _, lows = _affected(tensors, low, changed)
    for tensor, below, above in zip(there, lows, highs, strict=True):
        if tensor.is_complex():
            clamp_modulus(tensor, above)
            continue
        # A few times faster than clamp_ with tensors, whose broadcasting is not vectorised.
        torch.minimum(tensor, above.to(tensor.dtype), out=tensor)
        torch.maximum(tensor, below.to(tensor.dtype), out=tensor)


def zero_runs(tensors: Sequence[Tensor | None], runs: Tensor) -> None:
    """Set to zero the gradients of the runs for which `runs`, bool ``(runs, 1)``, is true."""
    there = [t for t in tensors if t is not None]
    if on_host(runs):
        places = runs.view(-1).nonzero().view(-1)
        if len(places):
            for tensor in there:
                tensor.index_fill_(0, places, 0.0)
        return
    for tensor in there:
        tensor.masked_fill_(runs.view(-1, *[1] * (tensor.ndim - 1)), 0.0)


def _either(one: Spans | None, other: Spans | None) -> Spans | None:
    if one is None or other is None:
        return None
    return [
        a or b if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))
        for a, b in zip(one, other, strict=True)
    ]


def _affected(
    tensors: Sequence[Tensor | None], table: BroadcastTable, changed: Spans | None
) -> tuple[list[Tensor], list[Tensor]]:
    there, columns = [], []
    for place, (tensor, column) in enumerate(zip(tensors, table.columns, strict=True)):
        if tensor is None or not tensor.numel():
            continue
        if changed is not None:
            span = changed[place]
            if span is None:
                continue
            if span != (0, table.runs):
                tensor, column = tensor[span[0] : span[1]], column[span[0] : span[1]]
        there.append(table.view(place, tensor))
        columns.append(column)
    return there, columns
