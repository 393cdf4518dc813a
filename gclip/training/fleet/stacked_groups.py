"""One run's parameters, and the groups that scopes make of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor

from gclip.clipping.groups import Groups
from gclip.clipping.norms import exact_norm, fitting, lost
from gclip.clipping.units import Axis, Units, usual


class StackedParameters:
    """The parameters of one run, and the views of them that strategies have."""

    def __init__(
        self,
        names: Sequence[str],
        shapes: Sequence[torch.Size],
        axes: Sequence[Axis] | None = None,
    ) -> None:
        self.names, self.shapes = tuple(names), tuple(shapes)
        self.axes = tuple(axes or map(usual, shapes))
        self.parts = list(map(Units, shapes, self.axes))
        self.units = [part.count for part in self.parts]
        self.starts = [0, *accumulate(self.units)]
        self._views: dict[tuple[tuple[int, ...], str, float], StackedGroups] = {}
        self._homes: dict[torch.device, Tensor] = {}

    def view(self, places: tuple[int, ...], scope: str, order: float) -> StackedGroups:
        """What a strategy sees of the parameters at `places`; one object for the same view."""
        key = (places, scope, order)
        if key not in self._views:
            self._views[key] = StackedGroups(self, places, scope, order)
        return self._views[key]

    def by_unit(self, values: Tensor) -> Tensor:
        """``(runs, tensors)`` as ``(runs, units)``."""
        device = values.device
        if device not in self._homes:
            homes = [i for i, count in enumerate(self.units) for _ in range(count)]
            self._homes[device] = torch.tensor(homes, device=device)
        return values.index_select(1, self._homes[device])


NormKind: TypeAlias = tuple[str, float]
"""``each`` tensor's norms, ``units``' norms or the ``ends`` (smallest, largest), and the order."""


class StackedGroups:
    """The groups that a scope makes of some parameters, and how they are measured.

    Attributes:
        groups: their labels, count and sizes.
        fine: whether a parameter may have several groups (its units).
    """

    def __init__(
        self, layout: StackedParameters, places: tuple[int, ...], scope: str, order: float
    ) -> None:
        self.layout = layout
        names = [layout.names[i] for i in places]
        shapes, axes = [layout.shapes[i] for i in places], [layout.axes[i] for i in places]
        self.groups = Groups(names, shapes, scope, axes)
        self.places, self.scope, self.order = places, scope, order
        self._layout = layout
        self.fine = scope == "unit"
        self.whole = len(places) == len(layout.names)
        self.entries = layout.starts[-1] if self.fine else len(layout.names)
        spans = [range(layout.starts[i], layout.starts[i + 1]) for i in places]
        self._columns = [at for span in spans for at in span] if self.fine else list(places)
        self._group_of = self._groups_of_columns()
        self._index: dict[tuple[str, torch.device], Tensor] = {}

    @property
    def kind(self) -> NormKind:
        """What has to be measured for it."""
        if self.fine:
            return "units", self.order
        return "each", math.inf if self.scope == "element" else self.order

    def of_groups(self, every: Tensor) -> Tensor:
        """The groups' norms, ``(runs, groups)``, from those that `kind` names."""
        each = self._mine(every)
        if self.scope == "global":
            return self._total(each)
        return self._layers(each) if self.scope == "layer" else each

    @property
    def l2(self) -> StackedGroups:
        """The same groups, by their L2 norms."""
        return self._layout.view(self.places, self.scope, 2.0)

    def tensors(self, each: Tensor) -> Tensor:
        """Of one entry a tensor of the layout, ``(runs, tensors)``, those of this view."""
        return each if self.whole else each.index_select(1, self._indexes("tensors", each.device))

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
            elif what == "tensors":
                found = list(self.places)
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
        wide = torch.float64 if each.device.type == "cuda" else None
        norm: Tensor = torch.linalg.vector_norm(each, self.order, dim=1, keepdim=True, dtype=wide)
        if lost(norm, self.order):
            exact = exact_norm(each, self.order, (1,)).unsqueeze(1)
            return fitting(exact, each.dtype)
        return norm.to(each.dtype)

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
