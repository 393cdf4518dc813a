"""Norms of stacks: all runs' gradients measured at once, ``(runs, groups)``.

A stack has the shape ``(runs, *shape)``. Each is read once for all the runs and all the strategies
that ask for norms of one kind; norms of layers and of all gradients are made from those of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from gclip.norms import sum_type
from gclip.scopes import Groups


class Layout:
    """The parameters of one run, and the views of them that strategies have."""

    def __init__(self, names: Sequence[str], shapes: Sequence[torch.Size]) -> None:
        self.names, self.shapes = tuple(names), tuple(shapes)
        sizes = [math.prod(shape) for shape in shapes]
        self.units = [
            shape[0] if len(shape) > 1 and size else 1
            for shape, size in zip(shapes, sizes, strict=True)
        ]
        self.starts = [0, *accumulate(self.units)]
        self._views: dict[tuple[tuple[int, ...], str, float], View] = {}

    def view(self, places: tuple[int, ...], scope: str, order: float) -> View:
        """What a strategy sees of the parameters at `places`; one object for the same view."""
        key = (places, scope, order)
        if key not in self._views:
            self._views[key] = View(self, places, scope, order)
        return self._views[key]


class View:
    """The groups that a scope makes of some parameters, and how they are measured.

    Attributes:
        groups: their labels, count and sizes.
        fine: whether a parameter may have several groups (its units).
    """

    def __init__(self, layout: Layout, places: tuple[int, ...], scope: str, order: float) -> None:
        names = [layout.names[i] for i in places]
        self.groups = Groups(names, [layout.shapes[i] for i in places], scope)
        self.places, self.scope, self.order = places, scope, order
        self.fine = scope == "unit"
        self.whole = len(places) == len(layout.names)
        self.entries = layout.starts[-1] if self.fine else len(layout.names)
        spans = [range(layout.starts[i], layout.starts[i + 1]) for i in places]
        self._columns = [at for span in spans for at in span] if self.fine else list(places)
        self._group_of = self._groups_of_columns()
        self._index: dict[tuple[str, torch.device], Tensor] = {}

    def norms(self, measured: Measured) -> Tensor:
        """``(runs, groups)`` float32."""
        if self.scope == "element":
            return self._mine(measured.each(math.inf))
        if self.fine:
            return self._mine(measured.units(self.order))
        each = self._mine(measured.each(self.order))
        if self.scope == "tensor":
            return each
        return self._total(each) if self.scope == "global" else self._layers(each)

    def tensor_norms(self, measured: Measured) -> Tensor:
        """Each tensor's L2 norm whatever the scope, ``(runs, tensors)`` float32."""
        if not self.fine:
            return self._mine(measured.each(2.0))
        return measured.each(2.0)[:, list(self.places)]

    def spread(self, values: Tensor, neutral: float) -> Tensor:
        """``(runs, groups)`` as ``(runs, entries)``: one a parameter, or one a unit, of the whole
        layout; `neutral` for parameters that are not of this view."""
        if self.whole and self.scope == "global":
            return values.expand(len(values), self.entries)
        if not self.whole:
            values = torch.cat([values, values.new_full((len(values), 1), neutral)], dim=1)
        elif self.scope != "layer":
            return values
        return values.index_select(1, self._indexes("spread", values.device))

    # -- inside ------------------------------------------------------------------------------

    def _mine(self, every: Tensor) -> Tensor:
        if self.whole:
            return every
        return every.index_select(1, self._indexes("mine", every.device))

    def _groups_of_columns(self) -> list[int]:
        """Of each of this view's columns, the group that it belongs to."""
        if self.scope == "global":
            return [0] * len(self._columns)
        if self.scope == "layer":
            return self.groups.layers
        return list(range(len(self._columns)))

    def _indexes(self, what: str, device: torch.device) -> Tensor:
        if (what, device) not in self._index:
            if what == "mine":
                found = self._columns
            elif what == "layers":
                found = self._group_of
            else:
                found = [self.groups.count] * self.entries  # where the neutral value will stand
                for column, group in zip(self._columns, self._group_of, strict=True):
                    found[column] = group
            self._index[what, device] = torch.tensor(found, dtype=torch.long, device=device)
        return self._index[what, device]

    def _total(self, each: Tensor) -> Tensor:
        if each.shape[1] == 1:
            return each
        wide = each.device.type == "cuda"
        total: Tensor = torch.linalg.vector_norm(
            each, self.order, dim=1, keepdim=True, dtype=torch.float64 if wide else None
        )
        return total.float() if wide else total

    def _layers(self, each: Tensor) -> Tensor:
        """Norms of tensors into norms of layers, relative to the largest: no power overflows."""
        index = self._indexes("layers", each.device).expand_as(each)
        zeros = each.new_zeros((len(each), self.groups.count))
        top = zeros.scatter_reduce(1, index, each, "amax")
        if self.order == math.inf:
            return top
        safe = torch.where((top > 0) & torch.isfinite(top), top, 1.0)
        ratio = each / safe.gather(1, index)
        return safe * zeros.scatter_add(1, index, ratio**self.order) ** (1 / self.order)


class Measured:
    """Stacks as they are now, each read when its norms are first asked for.

    Args:
        tensors: ``(runs, *shape)``; None where there is no gradient, which counts zero.
        wide: whether to sum in float64.
    """

    def __init__(
        self, tensors: Sequence[Tensor | None], layout: Layout, runs: int, device: torch.device,
        *, wide: bool = False,
    ) -> None:  # fmt: skip
        self.tensors, self.layout, self.runs, self.device = tensors, layout, runs, device
        self._wide = wide
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
        key = ("each", order)
        if key not in self._kept:
            parts = [self._norm(t, order, 1).view(-1) for t in self.tensors]
            self._kept[key] = torch.stack(parts, dim=1)
        return self._kept[key]

    def units(self, order: float) -> Tensor:
        """One norm a unit, ``(runs, units)`` float32."""
        key = ("units", order)
        if key not in self._kept:
            pairs = zip(self.tensors, self.layout.units, strict=True)
            self._kept[key] = torch.cat([self._norm(t, order, count) for t, count in pairs], dim=1)
        return self._kept[key]

    def ends(self) -> tuple[Tensor, Tensor]:
        """Each tensor's smallest and largest element, ``(runs, tensors)`` float32."""
        pairs = [self._ends(self._rows(t, 1)) for t in self.tensors]
        least, most = (torch.cat(side, dim=1) for side in zip(*pairs, strict=True))
        return least, most

    def _norm(self, tensor: Tensor | None, order: float, count: int) -> Tensor:
        """``(runs, count)``: the norms of `count` equal parts of each run's tensor."""
        rows = self._rows(tensor, count)
        if order == math.inf:  # many times faster than vector_norm, on a CPU
            least, most = self._ends(rows)
            return torch.maximum(most, -least)
        if not rows.shape[2]:
            return torch.zeros((self.runs, count), device=self.device)
        dtype = torch.float64 if self._wide else sum_type(rows)
        norm: Tensor = torch.linalg.vector_norm(rows, order, dim=2, dtype=dtype)
        return norm if norm.dtype == torch.float32 else norm.float()

    def _rows(self, tensor: Tensor | None, count: int) -> Tensor:
        if tensor is None or not tensor.numel():
            return torch.zeros((self.runs, count, 0), device=self.device)
        return tensor.reshape(self.runs, count, -1)

    def _ends(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if not rows.shape[2]:
            zeros = rows.new_zeros(rows.shape[:2])
            return zeros, zeros
        return rows.amin(dim=2).float(), rows.amax(dim=2).float()
