"""Norms of stacks: all runs' gradients measured at once, ``(runs, groups)``.

A stack has the shape ``(runs, *shape)``. Each is read once for all the runs and all the strategies
that ask for norms of one kind; norms of layers and of all gradients are made from those of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gclip.clipping.groups import refuse_complex, untrusted
from gclip.clipping.norms import exact_norm, fitting, lost, norm_type, sum_type
from gclip.clipping.units import Units
from gclip.training.fleet.stacked_groups import NormKind, StackedGroups, StackedParameters


class StackedNorms:
    """Stacks as they are now, each read when its norms are first asked for.

    Args:
        tensors: ``(runs, *shape)``; None where there is no gradient, which counts zero.
        spans: for each kind of norm, the runs that need it: others are not read, and count zero.
        zeros: as in `gclip.clipping.groups.Groups.measure`.
        again: whether to look at all for sums that overflowed or vanished.

    As in `gclip.clipping.groups`, norms are float64 where any stack is, else float32; and where the
    host sees that sums of powers overflowed or vanished, those are measured once more.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor | None],
        layout: StackedParameters,
        runs: int,
        device: torch.device,
        *,
        spans: Mapping[NormKind, slice] | None = None,
        zeros: bool = False,
        again: bool = True,
    ) -> None:
        self.tensors, self.layout, self.runs, self.device = tensors, layout, runs, device
        self._spans, self._zeros, self._again = spans or {}, zeros, again
        self._kept: dict[object, Tensor] = {}

    def of(self, view: StackedGroups) -> Tensor:
        """The norms of a view, ``(runs, groups)``; measured once."""
        if view not in self._kept:
            what, order = view.kind
            every = self.units(order) if what == "units" else self.each(order)
            self._kept[view] = view.of_groups(every)
        return self._kept[view]

    def tensor_norms(self, view: StackedGroups) -> Tensor:
        """Each of the view's tensors' L2 norm whatever its scope, ``(runs, tensors)``."""
        return view.tensors(self.each(2.0))

    def each(self, order: float) -> Tensor:
        """One norm a tensor, ``(runs, tensors)``."""
        return self._table("each", order, [None] * len(self.tensors))

    def units(self, order: float) -> Tensor:
        """One norm a unit, ``(runs, units)``."""
        return self._table("units", order, self.layout.parts)

    def _table(self, what: str, order: float, parts: Sequence[Units | None]) -> Tensor:
        """One norm for each tensor, or for each of its units, side by side."""
        kind = (what, order)
        if kind not in self._kept:
            span = self._span(kind)
            rows = [self._rows(t, span, part) for t, part in zip(self.tensors, parts, strict=True)]
            table = torch.cat([_norm(each, order) for each in rows], dim=1)
            if self._again and order != math.inf and lost(table, order):
                units = None if self._zeros or what != "units" else np.array(self.layout.units)
                bad = untrusted(table, order, units)
                table = _again(rows, table, order, bad)
            self._kept[kind] = self._padded(table, span)
        return self._kept[kind]

    def ends(self) -> tuple[Tensor, Tensor]:
        """Each tensor's smallest and largest element, ``(runs, tensors)``."""
        refuse_complex(self.tensors)
        span = self._span(("ends", math.inf))
        pairs = [_ends(self._rows(t, span)) for t in self.tensors]
        least, most = (
            self._padded(torch.cat(side, dim=1), span) for side in zip(*pairs, strict=True)
        )
        return least, most

    def _span(self, kind: NormKind) -> tuple[int, int]:
        span = self._spans.get(kind)
        return (0, self.runs) if span is None else (span.start, span.stop)

    def _padded(self, values: Tensor, span: tuple[int, int]) -> Tensor:
        """With zeros for the runs that were not read."""
        if span == (0, self.runs):
            return values
        full = values.new_zeros((self.runs, values.shape[1]))
        full[span[0] : span[1]] = values
        return full

    def _rows(
        self, tensor: Tensor | None, span: tuple[int, int], part: Units | None = None
    ) -> Tensor:
        """``(runs in the span, units, elements)``."""
        start, end = span
        if tensor is None or not tensor.numel():
            count = 1 if part is None else part.count
            return torch.zeros((end - start, count, 0), dtype=torch.float32, device=self.device)
        if span != (0, self.runs):
            tensor = tensor[start:end]
        return tensor.reshape(end - start, 1, -1) if part is None else part.matrix(tensor, 1)


def _norm(rows: Tensor, order: float) -> Tensor:
    """The norms over the last dimension."""
    dtype = norm_type([rows])
    if not rows.shape[2]:
        return torch.zeros(rows.shape[:2], dtype=dtype, device=rows.device)
    if order == math.inf:  # many times faster than vector_norm, on a CPU
        if rows.is_complex():
            return rows.abs().amax(dim=2).to(dtype)
        least, most = _ends(rows)
        return torch.maximum(most, -least)
    norm: Tensor = torch.linalg.vector_norm(rows, order, dim=2, dtype=sum_type(rows))
    return norm.to(dtype)


def _again(
    rows: Sequence[Tensor], table: Tensor, order: float, bad: npt.NDArray[np.bool_]
) -> Tensor:
    """Exact norms in place of the `bad` ones."""
    if not bad.any():
        return table
    exact, start = table.double(), 0
    for each in rows:
        end = start + each.shape[1]
        mine = np.flatnonzero(bad[:, start:end])
        if len(mine) and each.shape[2]:
            few = each.reshape(-1, each.shape[2]).index_select(0, torch.from_numpy(mine))
            if bool(few.any()):
                run, unit = np.divmod(mine, end - start)
                exact[run, start + unit] = exact_norm(few, order, (1,))
        start = end
    return fitting(exact, table.dtype)


def _ends(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest over the last dimension."""
    dtype = norm_type([rows])
    if not rows.shape[2]:
        zeros = torch.zeros(rows.shape[:2], dtype=dtype, device=rows.device)
        return zeros, zeros
    return rows.amin(dim=2).to(dtype), rows.amax(dim=2).to(dtype)
