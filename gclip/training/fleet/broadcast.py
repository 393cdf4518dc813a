"""What many strategies decided, applied to the stacks in one pass.

Each batch of runs leaves its factors (or its bounds, for a clamp); they are laid side by side in
one tensor, ``(runs, tensors)`` or ``(runs, units)``, whose columns broadcast against the stacks.
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

RunSpans: TypeAlias = list[tuple[int, int] | None]


class BroadcastTable:
    """One number for each run and tensor (or unit), `neutral` until other `values` are written.

    Args:
        parameters: of one run.
        runs: how many runs the stacks have.
        device, dtype: of the values.
        neutral: the number that changes nothing: 1 for a factor, infinite for a bound.
        by_unit: whether there is one number for each unit.
    """

    def __init__(
        self,
        parameters: StackedParameters,
        runs: int,
        device: torch.device,
        dtype: torch.dtype,
        neutral: float,
        *,
        by_unit: bool,
    ) -> None:
        counts = parameters.unit_counts if by_unit else [1] * len(parameters.names)
        self.values = torch.full((runs, sum(counts)), neutral, dtype=dtype, device=device)
        self.runs, self._neutral = runs, neutral
        self._offsets = np.cumsum([0, *counts[:-1]])
        self._units: list[Units | None] = [*parameters.units] if by_unit else [None] * len(counts)
        shapes = [(1,) * len(shape) for shape in parameters.shapes]
        if by_unit:
            shapes = [units.column for units in parameters.units]
        self.columns = [  # views, so that they follow what is written into the values
            column.view(runs, *shape)
            for column, shape in zip(torch.split(self.values, counts, dim=1), shapes, strict=True)
        ]

    def view(self, index: int, stack: Tensor) -> Tensor:
        """The stack at an index, sharing memory, with the dimensions that its column has."""
        units = self._units[index]
        return stack if units is None else units.view(stack, 1)

    def clear(self) -> None:
        """Make all values neutral again."""
        self.values.fill_(self._neutral)

    def changed(self) -> RunSpans | None:
        """For each tensor, the first and last + 1 of the runs that are not neutral, or None.

        None in place of the list where the host cannot tell.
        """
        if not on_host(self.values):
            return None
        differs: npt.NDArray[np.bool_] = np.logical_or.reduceat(
            self.values.numpy() != self._neutral, self._offsets, axis=1
        )
        some = np.any(differs, axis=0)
        first = differs.argmax(axis=0)
        last = self.runs - differs[::-1].argmax(axis=0)
        spans = zip(some.tolist(), first.tolist(), last.tolist(), strict=True)
        return [(start, end) if any_ else None for any_, start, end in spans]


def multiply(tensors: Sequence[Tensor | None], factors: BroadcastTable) -> None:
    """Multiply each stack by its factors; on a CPU, only the runs that any factor changes."""
    affected, columns = _affected(tensors, factors, factors.changed())
    if affected:
        torch._foreach_mul_(affected, columns)


def clamp(tensors: Sequence[Tensor | None], low: BroadcastTable, high: BroadcastTable) -> None:
    """Cut each element to its bounds; NaN stays NaN. Complex ones by modulus, their phase kept."""
    changed = _union(low.changed(), high.changed())
    affected, uppers = _affected(tensors, high, changed)
    _, lowers = _affected(tensors, low, changed)
    for tensor, lower, upper in zip(affected, lowers, uppers, strict=True):
        if tensor.is_complex():
            clamp_modulus(tensor, upper)
            continue
        # A few times faster than clamp_ with tensors, whose broadcasting is not vectorised.
        torch.minimum(tensor, upper.to(tensor.dtype), out=tensor)
        torch.maximum(tensor, lower.to(tensor.dtype), out=tensor)


def zero_runs(tensors: Sequence[Tensor | None], runs: Tensor) -> None:
    """Set to zero the gradients of the runs for which `runs`, bool ``(runs, 1)``, is true."""
    given = [t for t in tensors if t is not None]
    if on_host(runs):
        indices = runs.view(-1).nonzero().view(-1)
        if len(indices):
            for tensor in given:
                tensor.index_fill_(0, indices, 0.0)
        return
    for tensor in given:
        tensor.masked_fill_(runs.view(-1, *[1] * (tensor.ndim - 1)), 0.0)


def _union(one: RunSpans | None, other: RunSpans | None) -> RunSpans | None:
    if one is None or other is None:
        return None
    return [
        a or b if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))
        for a, b in zip(one, other, strict=True)
    ]


def _affected(
    tensors: Sequence[Tensor | None], table: BroadcastTable, changed: RunSpans | None
) -> tuple[list[Tensor], list[Tensor]]:
    affected, columns = [], []
    for index, (tensor, column) in enumerate(zip(tensors, table.columns, strict=True)):
        if tensor is None or not tensor.numel():
            continue
        if changed is not None:
            span = changed[index]
            if span is None:
                continue
            if span != (0, table.runs):
                tensor, column = tensor[span[0] : span[1]], column[span[0] : span[1]]
        affected.append(table.view(index, tensor))
        columns.append(column)
    return affected, columns
