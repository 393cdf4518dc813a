"""The groups that a scope makes of some parameters: their labels, sizes and places.

Groups are numbered in the order of the parameters: one for ``global``, one per module for
``layer``, one per parameter for ``tensor`` and ``element``, and for ``unit`` one per output of its
module: an output row of a Linear ``(out, in)``, a filter of a convolution ``(out, in, kh, kw)``,
the whole of a bias; see `gclip.clipping.units`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from gclip.clipping.units import WHOLE, Axis, Units, usual
from gclip.core.scaling import divisor
from gclip.errors import UsageError

_SizesKey: TypeAlias = tuple[torch.device, torch.dtype, tuple[bool, ...] | None]


class GroupLayout:
    """The groups that a scope makes of some parameters.

    Args:
        names: the parameters' dotted names, which tell their layers.
        shapes: their shapes.
        scope: one of `gclip.core.strategy.SCOPES`.
        axes: where each parameter's units lie; by default along dimension 0.

    Attributes:
        all_filled: whether no parameter is empty.
        count: how many groups there are.
        labels: a name for each group, in order.
        units: of each parameter, its units: one but for the scope ``unit``.
        unit_counts: how many units each parameter has.
        starts: the index of each parameter's first unit.
    """

    def __init__(
        self,
        names: Sequence[str],
        shapes: Sequence[torch.Size],
        scope: str,
        axes: Sequence[Axis] | None = None,
    ) -> None:
        self.names, self.shapes, self.scope = tuple(names), tuple(shapes), scope
        self._numels = [math.prod(shape) for shape in shapes]
        self.all_filled = all(self._numels)
        self.axes = tuple(axes or map(usual, shapes))
        self.units = [
            Units(shape, axis if scope == "unit" else WHOLE)
            for shape, axis in zip(shapes, self.axes, strict=True)
        ]
        counts = self.unit_counts = [units.count for units in self.units]
        if scope == "global":
            self.labels: tuple[str, ...] = ("all",)
        elif scope == "layer":
            self.labels = tuple(dict.fromkeys(map(layer_of, names)))
        elif scope == "unit":
            pairs = zip(names, self.units, strict=True)
            self.labels = tuple(label for name, units in pairs for label in units.labels(name))
        else:
            self.labels = self.names
        self.count = len(self.labels)
        self.starts = np.cumsum([0, *counts[:-1]]) if counts else np.zeros(0, int)
        self._sizes: dict[_SizesKey, Tensor] = {}
        self._layer_indices: dict[torch.device, Tensor] = {}

    def sizes(
        self,
        device: torch.device,
        trained: Sequence[bool] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """How many elements each group has, ``(groups,)`` of `dtype`.

        Parameters that are not `trained` do not count.
        """
        mask = None if trained is None or all(trained) else tuple(trained)
        key = (device, dtype, mask)
        if key not in self._sizes:
            self._sizes[key] = self._count_elements(device, dtype, mask)
        return self._sizes[key]

    def spread(self, values: Tensor) -> Tensor:
        """A value a parameter as a value a group; only where no group has several parameters."""
        if self.scope != "unit":
            return values
        counts = torch.tensor(self.unit_counts, device=values.device)
        return torch.repeat_interleave(values, counts, output_size=self.count)

    def by_tensor(self, values: Tensor) -> Tensor:
        """Values ``(…, groups)`` as ``(…, tensors)``; of the scope ``unit``, as they are."""
        if self.scope == "global":
            return values.expand(*values.shape[:-1], len(self.shapes))
        if self.scope == "layer":
            return values[..., self.layer_indices(values.device)]
        return values

    def present(self, tensors: Sequence[Tensor | None], device: torch.device) -> Tensor:
        """Bool ``(groups,)``: True where any of the group's tensors is there."""
        flags = torch.tensor([t is not None for t in tensors], dtype=torch.float32).to(device)
        if self.scope == "global":
            return flags.amax(dim=0, keepdim=True) > 0
        if self.scope == "layer":
            return self.combine(flags, 1.0) > 0
        return self.spread(flags) > 0

    def combine(self, norms: Tensor, order: float) -> Tensor:
        """Norms of tensors ``(…, tensors)`` into norms of layers ``(…, groups)``."""
        index = self.layer_indices(norms.device)
        zeros = norms.new_zeros((*norms.shape[:-1], self.count))
        # Relative to the largest, so that the powers neither overflow nor vanish.
        largest = zeros.scatter_reduce(-1, index.expand_as(norms), norms, "amax")
        if order == math.inf:
            return largest
        safe = divisor(largest)
        ratio = norms / safe.index_select(-1, index)
        return safe * zeros.index_add(-1, index, ratio**order) ** (1 / order)

    @property
    def layers(self) -> list[int]:
        """Of each parameter, the group of its layer; for the scope ``layer``."""
        group_of = {label: group for group, label in enumerate(self.labels)}
        return [group_of[layer_of(name)] for name in self.names]

    def layer_indices(self, device: torch.device) -> Tensor:
        """`layers` as a tensor ``(tensors,)``."""
        if device not in self._layer_indices:
            self._layer_indices[device] = torch.tensor(self.layers, device=device)
        return self._layer_indices[device]

    def _count_elements(
        self, device: torch.device, dtype: torch.dtype, mask: tuple[bool, ...] | None
    ) -> Tensor:
        numels = torch.tensor(self._numels, dtype=dtype, device=device)
        if mask is not None:
            numels = numels * torch.tensor(mask, device=device)
        if self.scope == "global":
            return numels.sum(dim=0, keepdim=True)
        if self.scope == "layer":
            return self.combine(numels, 1.0)
        return self.spread(numels / torch.tensor(self.unit_counts, device=device))


def layer_of(name: str) -> str:
    """``conv1.weight`` belongs to ``conv1``; a name without a dot is a layer of its own."""
    return name.rpartition(".")[0] or name


def check_layers(names: Sequence[str], named: bool) -> None:
    """`UsageError` where parameters came without names, so that layers cannot be told."""
    if not named:
        raise UsageError(
            "the scope 'layer' needs the parameters' names: pass the model or its "
            f"named_parameters() instead of parameters() ({len(names)} parameters without names)"
        )
