"""Norms of stacks: all runs' gradients measured at once, ``(runs, groups)``.

A stack has the shape ``(runs, *shape)``. Each is read once for all the runs and all the strategies
that ask for norms of one kind; norms of layers and of all gradients are made from those of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gclip.fleet.layout import Kind, Layout, View
from gclip.norms import sum_type


class Measured:
    """Stacks as they are now, each read when its norms are first asked for.

    Args:
        tensors: ``(runs, *shape)``; None where there is no gradient, which counts zero.
        spans: for each kind of norm, the runs that need it: others are not read, and count zero.
        wide: whether to sum in float64.
    """

    def __init__(
        self, tensors: Sequence[Tensor | None], layout: Layout, runs: int, device: torch.device,
        *, spans: Mapping[Kind, slice] | None = None, wide: bool = False,
    ) -> None:  # fmt: skip
        self.tensors, self.layout, self.runs, self.device = tensors, layout, runs, device
        self._spans, self.wide = spans or {}, wide
        self._kept: dict[object, Tensor] = {}

    def of(self, view: View) -> Tensor:
        """The norms of a view, ``(runs, groups)``; measured once."""
        if view not in self._kept:
            self._kept[view] = view.norms(self)
        return self._kept[view]

    def replace(self, view: View, norms: Tensor) -> None:
        """Other norms of a view, measured more exactly."""
        self._kept[view] = norms

    def each(self, order: float) -> Tensor:
        """One norm a tensor, ``(runs, tensors)`` float32."""
        kind = ("each", order)
        if kind not in self._kept:
            span = self._span(kind)
            parts = [self._norm(t, order, span, 1).view(-1) for t in self.tensors]
            self._kept[kind] = self._padded(torch.stack(parts, dim=1), span)
        return self._kept[kind]

    def units(self, order: float) -> Tensor:
        """One norm a unit, ``(runs, units)`` float32."""
        kind = ("units", order)
        if kind not in self._kept:
            span = self._span(kind)
            pairs = zip(self.tensors, self.layout.units, strict=True)
            parts = [self._norm(t, order, span, count) for t, count in pairs]
            self._kept[kind] = self._padded(torch.cat(parts, dim=1), span)
        return self._kept[kind]

    def ends(self) -> tuple[Tensor, Tensor]:
        """Each tensor's smallest and largest element, ``(runs, tensors)`` float32."""
        span = self._span(("ends", math.inf))
        pairs = [_ends(self._rows(t, span, 1)) for t in self.tensors]
        least, most = (
            self._padded(torch.cat(side, dim=1), span) for side in zip(*pairs, strict=True)
        )
        return least, most

    def _span(self, kind: Kind) -> tuple[int, int]:
        span = self._spans.get(kind)
        return (0, self.runs) if span is None else (span.start, span.stop)

    def _padded(self, values: Tensor, span: tuple[int, int]) -> Tensor:
        """With zeros for the runs that were not read."""
        if span == (0, self.runs):
            return values
        full = values.new_zeros((self.runs, values.shape[1]))
        full[span[0] : span[1]] = values
        return full

    def _norm(
        self, tensor: Tensor | None, order: float, span: tuple[int, int], count: int
    ) -> Tensor:
        """``(runs in the span, count)``: the norms of `count` equal parts of each one's tensor."""
        rows = self._rows(tensor, span, count)
        if order == math.inf:  # many times faster than vector_norm, on a CPU
            least, most = _ends(rows)
            return torch.maximum(most, -least)
        if not rows.shape[2]:
            return rows.new_zeros(rows.shape[:2])
        dtype = torch.float64 if self.wide else sum_type(rows)
        norm: Tensor = torch.linalg.vector_norm(rows, order, dim=2, dtype=dtype)
        return norm if norm.dtype == torch.float32 else norm.float()

    def _rows(self, tensor: Tensor | None, span: tuple[int, int], count: int) -> Tensor:
        start, end = span
        if tensor is None or not tensor.numel():
            return torch.zeros((end - start, count, 0), device=self.device)
        if span != (0, self.runs):
            tensor = tensor[start:end]
        return tensor.reshape(end - start, count, -1)


def _ends(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest over the last dimension, float32."""
    if not rows.shape[2]:
        zeros = rows.new_zeros(rows.shape[:2])
        return zeros, zeros
    return rows.amin(dim=2).float(), rows.amax(dim=2).float()
