"""Norms of stacks: all runs' gradients measured at once, ``(runs, groups)``.

A stack has the shape ``(runs, *shape)``. Each is read once for all the runs and all the strategies
that ask for norms of one kind; norms of layers and of all gradients are made from those of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gclip.clipping.float64_norms import (
    Mask,
    cast_if_representable,
    out_of_range,
    out_of_range_mask,
    remeasure,
)
from gclip.clipping.group_norms import refuse_complex
from gclip.clipping.norms import norm_type, sum_type
from gclip.clipping.units import Units
from gclip.training.fleet.stacked_groups import NormKind, StackedGroups, StackedParameters


class StackedNorms:
    """Stacks as they are now, each read when its norms are first asked for.

    Args:
        tensors: ``(runs, *shape)``; None where there is no gradient, which counts zero.
        parameters: whose tensors they are.
        runs, device: of the tensors, also where all are None.
        spans: for each kind of norm, the runs that need it: others are not read, and count zero.
        zeros: as in `gclip.clipping.groups.Groups.measure`.
        recheck: whether to look at all for sums that overflowed or vanished.

    As in `gclip.clipping.groups`, norms are float64 where any stack is, else float32; and where the
    host sees that sums of powers overflowed or vanished, those are measured once more.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor | None],
        parameters: StackedParameters,
        runs: int,
        device: torch.device,
        *,
        spans: Mapping[NormKind, slice] | None = None,
        zeros: bool = False,
        recheck: bool = True,
    ) -> None:
        self.tensors, self.parameters, self.runs, self.device = tensors, parameters, runs, device
        self._spans, self._zeros, self._recheck = spans or {}, zeros, recheck
        self._cache: dict[object, Tensor] = {}

    def of(self, groups: StackedGroups) -> Tensor:
        """The groups' norms, ``(runs, groups)``; measured once."""
        if groups not in self._cache:
            kind, order = groups.norm_kind
            norms = self.by_unit(order) if kind == "unit" else self.by_tensor(order)
            self._cache[groups] = groups.reduce(norms)
        return self._cache[groups]

    def tensor_norms(self, groups: StackedGroups) -> Tensor:
        """The L2 norm of each of the groups' tensors whatever the scope, ``(runs, tensors)``."""
        return groups.select_tensors(self.by_tensor(2.0))

    def by_tensor(self, order: float) -> Tensor:
        """One norm a tensor, ``(runs, tensors)``."""
        return self._measure("tensor", order, [None] * len(self.tensors))

    def by_unit(self, order: float) -> Tensor:
        """One norm a unit, ``(runs, units)``."""
        return self._measure("unit", order, self.parameters.units)

    def _measure(self, what: str, order: float, units: Sequence[Units | None]) -> Tensor:
        """One norm for each tensor, or for each of its units, side by side."""
        kind = (what, order)
        if kind not in self._cache:
            span = self._span(kind)
            rows = [self._rows(t, span, cut) for t, cut in zip(self.tensors, units, strict=True)]
            norms = torch.cat([_norm(each, order) for each in rows], dim=1)
            if self._recheck and order != math.inf and out_of_range(norms, order):
                skip_counts = self._zeros or what != "unit"
                counts = None if skip_counts else np.array(self.parameters.unit_counts)
                norms = _exact(rows, norms, order, out_of_range_mask(norms, order, counts))
            self._cache[kind] = self._pad(norms, span)
        return self._cache[kind]

    def measured(self) -> list[tuple[tuple[str, ...], Tensor]]:
        """All norms of tensors and of units that were asked for so far, ``(runs, …)``, and of which
        parameter each is."""
        parameters = self.parameters
        return [
            (parameters.unit_names if kind[0] == "unit" else parameters.names, norms)
            for kind, norms in self._cache.items()
            if isinstance(kind, tuple)
        ]

    def extremes(self) -> tuple[Tensor, Tensor]:
        """Each tensor's smallest and largest element, ``(runs, tensors)``."""
        refuse_complex(self.tensors)
        span = self._span(("extremes", math.inf))
        pairs = [_extremes(self._rows(t, span)) for t in self.tensors]
        least, most = (self._pad(torch.cat(ends, dim=1), span) for ends in zip(*pairs, strict=True))
        return least, most

    def _span(self, kind: NormKind) -> tuple[int, int]:
        span = self._spans.get(kind)
        return (0, self.runs) if span is None else (span.start, span.stop)

    def _pad(self, values: Tensor, span: tuple[int, int]) -> Tensor:
        """With zeros for the runs that were not read."""
        if span == (0, self.runs):
            return values
        full = values.new_zeros((self.runs, values.shape[1]))
        full[span[0] : span[1]] = values
        return full

    def _rows(
        self, tensor: Tensor | None, span: tuple[int, int], units: Units | None = None
    ) -> Tensor:
        """``(runs in the span, units, elements)``."""
        start, end = span
        if tensor is None or not tensor.numel():
            count = 1 if units is None else units.count
            return torch.zeros((end - start, count, 0), dtype=torch.float32, device=self.device)
        if span != (0, self.runs):
            tensor = tensor[start:end]
        return tensor.reshape(end - start, 1, -1) if units is None else units.matrix(tensor, 1)


def _norm(rows: Tensor, order: float) -> Tensor:
    """The norms over the last dimension."""
    dtype = norm_type([rows])
    if not rows.shape[2]:
        return torch.zeros(rows.shape[:2], dtype=dtype, device=rows.device)
    if order == math.inf:  # many times faster than vector_norm, on a CPU
        if rows.is_complex():
            return rows.abs().amax(dim=2).to(dtype)
        least, most = _extremes(rows)
        return torch.maximum(most, -least)
    norm: Tensor = torch.linalg.vector_norm(rows, order, dim=2, dtype=sum_type(rows))
    return norm.to(dtype)


def _exact(rows: Sequence[Tensor], norms: Tensor, order: float, mask: Mask) -> Tensor:
    """Exact norms in place of those in the mask."""
    ends = np.cumsum([each.shape[1] for each in rows])[:-1]
    parts = zip(
        norms.tensor_split(ends.tolist(), dim=1), rows, np.split(mask, ends, 1), strict=True
    )
    exact = torch.cat([remeasure(own, each, order, flags) for own, each, flags in parts], dim=1)
    return cast_if_representable(exact, norms.dtype)


def _extremes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest over the last dimension."""
    dtype = norm_type([rows])
    if not rows.shape[2]:
        zeros = torch.zeros(rows.shape[:2], dtype=dtype, device=rows.device)
        return zeros, zeros
    return rows.amin(dim=2).to(dtype), rows.amax(dim=2).to(dtype)
