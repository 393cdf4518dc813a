"""One run's parameters, and the groups that scopes make of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor

from gclip.clipping.float64_norms import recheck
from gclip.clipping.groups import Groups
from gclip.clipping.units import Axis, Units, usual


class StackedParameters:
    """Names and shapes of one run's parameters, and the groups that strategies see of them.

    Attributes:
        units: how each parameter is cut into units, whose number is in `unit_counts`.
        unit_offsets: the column of each parameter's first unit, and last the number of them all.
    """

    def __init__(
        self,
        names: Sequence[str],
        shapes: Sequence[torch.Size],
        axes: Sequence[Axis] | None = None,
    ) -> None:
        self.names, self.shapes = tuple(names), tuple(shapes)
        self.axes = tuple(axes or map(usual, shapes))
        self.units = list(map(Units, shapes, self.axes))
        self.unit_counts = [units.count for units in self.units]
        self.unit_offsets = [0, *accumulate(self.unit_counts)]
        self._groups: dict[tuple[tuple[int, ...], str, float], StackedGroups] = {}
        self._tensor_of_unit: dict[torch.device, Tensor] = {}

    @cached_property
    def unit_names(self) -> tuple[str, ...]:
        """Of each unit its parameter's name."""
        counted = zip(self.names, self.unit_counts, strict=True)
        return tuple(name for name, count in counted for _ in range(count))

    def groups(self, indices: tuple[int, ...], scope: str, order: float) -> StackedGroups:
        """The groups of the parameters at `indices`; one object for the same groups."""
        key = (indices, scope, order)
        if key not in self._groups:
            self._groups[key] = StackedGroups(self, indices, scope, order)
        return self._groups[key]

    def repeat_by_unit(self, values: Tensor) -> Tensor:
        """``(runs, tensors)`` as ``(runs, units)``."""
        device = values.device
        if device not in self._tensor_of_unit:
            owners = [i for i, count in enumerate(self.unit_counts) for _ in range(count)]
            self._tensor_of_unit[device] = torch.tensor(owners, device=device)
        return values.index_select(1, self._tensor_of_unit[device])


NormKind: TypeAlias = tuple[str, float]
"""Norms of each ``tensor``, of its ``unit``s, or its ``extremes``; and the order."""


class StackedGroups:
    """The groups that a scope makes of some parameters, and how they are measured.

    Args:
        parameters: all of the run's.
        indices: which of them.
        scope: as a strategy's.
        order: of the norms.

    Attributes:
        single_run: the groups of one run, with their labels, count and sizes.
        by_unit: whether a parameter may have several groups (its units).
        all_parameters: whether `indices` are those of all.
        columns: how many entries all parameters have: one each, or one a unit.
    """

    def __init__(
        self, parameters: StackedParameters, indices: tuple[int, ...], scope: str, order: float
    ) -> None:
        self.parameters = parameters
        names = [parameters.names[i] for i in indices]
        shapes = [parameters.shapes[i] for i in indices]
        self.single_run = Groups(names, shapes, scope, [parameters.axes[i] for i in indices])
        self.indices, self.scope, self.order = indices, scope, order
        self.by_unit = scope == "unit"
        self.all_parameters = len(indices) == len(parameters.names)
        offsets = parameters.unit_offsets
        self.columns = offsets[-1] if self.by_unit else len(parameters.names)
        spans = [range(offsets[i], offsets[i + 1]) for i in indices]
        self._own = [c for span in spans for c in span] if self.by_unit else list(indices)
        self._group_of = self._groups_of_columns()
        self._index: dict[tuple[str, torch.device], Tensor] = {}

    @property
    def norm_kind(self) -> NormKind:
        """What has to be measured for it."""
        if self.by_unit:
            return "unit", self.order
        return "tensor", math.inf if self.scope == "element" else self.order

    def reduce(self, norms: Tensor) -> Tensor:
        """The groups' norms, ``(runs, groups)``, from those that `norm_kind` names."""
        if not self.all_parameters:
            norms = norms.index_select(1, self._indices("own", norms.device))
        if self.scope == "global":
            return self._global(norms)
        return self.single_run.combine(norms, self.order) if self.scope == "layer" else norms

    @property
    def l2(self) -> StackedGroups:
        """The same groups, by their L2 norms."""
        return self.parameters.groups(self.indices, self.scope, 2.0)

    def select_tensors(self, values: Tensor) -> Tensor:
        """``(runs, all tensors)`` to those of these parameters, ``(runs, tensors)``."""
        if self.all_parameters:
            return values
        return values.index_select(1, self._indices("tensors", values.device))

    def expand(self, values: Tensor, neutral: float) -> Tensor:
        """``(runs, groups)`` as ``(runs, columns)``: one a parameter, or one a unit, of all
        parameters; `neutral` for those that are not among these."""
        if self.all_parameters and self.scope == "global":
            return values.expand(len(values), self.columns)
        if not self.all_parameters:
            values = torch.cat([values, values.new_full((len(values), 1), neutral)], dim=1)
        elif self.scope != "layer":
            return values
        return values.index_select(1, self._indices("expand", values.device))

    # -- inside ------------------------------------------------------------------------------

    def _groups_of_columns(self) -> list[int]:
        """For each of these parameters' columns, the group that it belongs to."""
        if self.scope == "global":
            return [0] * len(self._own)
        if self.scope == "layer":
            return self.single_run.layers
        return list(range(len(self._own)))

    def _indices(self, purpose: str, device: torch.device) -> Tensor:
        if (purpose, device) not in self._index:
            if purpose == "own":
                indices = self._own
            elif purpose == "tensors":
                indices = list(self.indices)
            else:
                indices = [self.single_run.count] * self.columns  # where the neutral value stands
                for column, group in zip(self._own, self._group_of, strict=True):
                    indices[column] = group
            index = torch.tensor(indices, dtype=torch.long, device=device)
            self._index[purpose, device] = index
        return self._index[purpose, device]

    def _global(self, norms: Tensor) -> Tensor:
        if norms.shape[1] == 1:
            return norms
        dtype = torch.float64 if norms.device.type == "cuda" else None
        norm: Tensor = torch.linalg.vector_norm(norms, self.order, dim=1, keepdim=True, dtype=dtype)
        return recheck(norm.to(norms.dtype).squeeze(1), norms, self.order).unsqueeze(1)
