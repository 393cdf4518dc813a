"""Measuring the groups of a scope: gradients into norms ``(groups,)``.

Norms are float32, and float64 where any gradient is. The gradients are read once, by whichever
call is fastest on the device: one dot product per tensor on a CPU, multi-tensor kernels on a GPU.
Nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from gclip.clipping.float64_norms import (
    Mask,
    cast_if_representable,
    exact_norm,
    in_range,
    only_dead_units,
    out_of_range,
    out_of_range_mask,
    remeasure,
)
from gclip.clipping.group_layout import GroupLayout
from gclip.clipping.norms import (
    ALL_FINITE,
    all_finite,
    global_norm,
    norm_type,
    sum_type,
    tensor_norms,
    total,
)
from gclip.clipping.units import Axis
from gclip.core.host import on_host
from gclip.errors import UsageError

_BufferKey: TypeAlias = tuple[torch.device, torch.dtype]


class GroupNorms(GroupLayout):
    """The norms of the groups that a scope makes of some parameters; see `GroupLayout`."""

    def __init__(
        self,
        names: Sequence[str],
        shapes: Sequence[torch.Size],
        scope: str,
        axes: Sequence[Axis] | None = None,
    ) -> None:
        super().__init__(names, shapes, scope, axes)
        self._reduced = [units.reduced for units in self.units]
        # Norms of units can be taken of the tensors as they are, and none is of one element.
        self._simple = all(units.plain and units.reduced != () for units in self.units)
        self._buffers: dict[_BufferKey, Tensor] = {}
        self._slots: dict[_BufferKey, list[Tensor]] = {}
        self._columns: dict[_BufferKey, list[Tensor]] = {}
        self._each: Tensor | None = None  # one norm a tensor, of the last `norms`
        self._owners = tuple(
            name
            for name, units in zip(self.names, self.units, strict=True)
            for _ in range(units.count)
        )

    def norms(
        self,
        tensors: Sequence[Tensor | None],
        order: float,
        device: torch.device,
        *,
        float64: bool = False,
    ) -> Tensor:
        """Each group's p-norm, ``(groups,)`` on `device`. A missing tensor counts zero.

        For the scope ``element``, each tensor's largest absolute element.

        Args:
            tensors: one a parameter, or None.
            order: p.
            device: of the norms.
            float64: sum in float64: slower on a CPU, and needed only where float32 sums of squares
                overflow: see `measure`.
        """
        if self.scope == "element":
            return self._tensor_norms(tensors, math.inf, device, float64)
        if self.scope == "unit":
            return self._unit_norms(tensors, order, device, float64)
        compiling = torch.compiler.is_compiling()
        if self.scope == "global":
            present = [t for t in tensors if t is not None]
            if compiling or device.type == "cpu" or len(present) < len(tensors):
                self._each = None
                return global_norm(present, order, device, float64)
            self._each = tensor_norms(present, order, device, float64)
            return total(self._each, order, float64)
        norms = self._tensor_norms(tensors, order, device, float64)
        if self.scope == "tensor":
            return norms
        self._each = None if compiling else norms
        return self.combine(norms, order)

    def finest(self, norms: Tensor) -> tuple[Sequence[str], Tensor]:
        """The smallest parts whose norms are known: parameters, or else layers, or else none.

        Args:
            norms: what `norms` has just given.

        Returns:
            Whose each is, and the norms ``(names,)``.
        """
        if self.scope == "unit":
            return self._owners, norms
        if self.scope in ("global", "layer") and self._each is not None:
            return self.names, self._each
        return ((), norms[:0]) if self.scope == "global" else (self.labels, norms)

    def measure(
        self,
        tensors: Sequence[Tensor | None],
        order: float,
        device: torch.device,
        *,
        zeros: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """`norms`, and whether all of them are finite, bool ``(1,)``.

        Where the host sees that sums of powers overflowed or vanished, those groups are measured
        once more. A norm of float32 gradients that float32 does not hold makes all float64.

        Args:
            tensors: one a parameter, or None.
            order: p.
            device: of the norms.
            zeros: whether a unit of norm 0 beside larger ones of its tensor is among those; many
                are dead and really zero, and it would be a tiny one among large ones.
        """
        return self.recheck(tensors, order, self.norms(tensors, order, device), zeros=zeros)

    def recheck(
        self, tensors: Sequence[Tensor | None], order: float, norms: Tensor, *, zeros: bool = True
    ) -> tuple[Tensor, Tensor]:
        """The second half of `measure`, of norms that have been taken.

        Args:
            tensors: one a parameter, or None.
            order: p.
            norms: as measured, ``(groups,)``.
            zeros: whether sums that vanished matter.
        """
        if not on_host(norms):
            return norms, all_finite(norms)
        if in_range(norms, order):
            return norms, ALL_FINITE
        if order == math.inf or self.scope == "element":
            return norms, all_finite(norms)
        counts = None
        if self.scope == "unit" and not zeros:
            if only_dead_units(norms, order, self.starts):
                return norms, ALL_FINITE
            counts = np.array(self.unit_counts)
        mask = out_of_range_mask(norms, order, counts)
        if not mask.any():
            return norms, ALL_FINITE
        norms = self._remeasure(tensors, order, norms, mask)
        return norms, all_finite(norms)

    def tensor_norms(
        self, tensors: Sequence[Tensor | None], device: torch.device, *, recheck: bool = True
    ) -> Tensor:
        """Each tensor's L2 norm whatever the scope, ``(tensors,)``, measured as `measure` does
        (or, where not `recheck`, once)."""
        norms = self._tensor_norms(tensors, 2.0, device, False)
        if not recheck or not out_of_range(norms, 2.0):
            return norms
        exact = _remeasure_tensors(tensors, 2.0, norms, out_of_range_mask(norms, 2.0))
        return cast_if_representable(exact, norms.dtype)

    def extremes(
        self, tensors: Sequence[Tensor | None], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Each tensor's smallest and largest element, ``(tensors,)``; 0 for none."""
        refuse_complex(tensors)
        zero = torch.zeros((), dtype=norm_type(tensors), device=device)
        pairs = [torch.aminmax(t) if t is not None and t.numel() else (zero, zero) for t in tensors]
        least, most = (torch.stack([pair[i].to(zero) for pair in pairs]) for i in (0, 1))
        return least, most

    # -- inside ----------------------------------------------------------------------------

    def _tensor_norms(
        self, tensors: Sequence[Tensor | None], order: float, device: torch.device, float64: bool
    ) -> Tensor:
        """One norm a tensor, ``(tensors,)``."""
        present = [t for t in tensors if t is not None]
        if len(present) == len(tensors):
            return tensor_norms(present, order, device, float64)
        zero = torch.zeros((), dtype=norm_type(present), device=device)
        # Not by indices, which would be copied to a GPU and wait for it.
        norms = iter(tensor_norms(present, order, device, float64).unbind(0) if present else ())
        return torch.stack([zero if t is None else next(norms) for t in tensors])

    def _unit_norms(
        self, tensors: Sequence[Tensor | None], order: float, device: torch.device, float64: bool
    ) -> Tensor:
        if torch.compiler.is_compiling() or not self._simple:
            return self._unit_norms_unbuffered(tensors, order, device, float64)
        norm = torch.linalg.vector_norm
        usual = (torch.float32, device)
        full = not float64 and self.all_filled
        if full and not [t for t in tensors if t is None or (t.dtype, t.device) != usual]:
            key = (device, torch.float32)
            for tensor, slot, dims in zip(tensors, self.slots(key), self._reduced, strict=True):
                norm(tensor, order, dims, out=slot)
            return self._buffers[key].clone()
        key = (device, norm_type(tensors))
        for tensor, slot, dims in zip(tensors, self.slots(key), self._reduced, strict=True):
            if tensor is None or tensor.numel() == 0:
                slot.zero_()
                continue
            slot.copy_(norm(tensor, order, dims, dtype=sum_type(tensor, float64)))
        return self._buffers[key].clone()

    def _unit_norms_unbuffered(
        self, tensors: Sequence[Tensor | None], order: float, device: torch.device, float64: bool
    ) -> Tensor:
        """The same without memory that is used again, which compilers take for one and the same."""
        norms, dtype = [], norm_type(tensors)
        for tensor, units in zip(tensors, self.units, strict=True):
            if tensor is None or tensor.numel() == 0:
                norms.append(torch.zeros(units.count, dtype=dtype, device=device))
                continue
            norm = units.norm(tensor, order, dtype=sum_type(tensor, float64))
            norms.append(norm.to(device, dtype))
        return torch.cat(norms)

    def slots(self, key: _BufferKey) -> list[Tensor]:
        """Views of one ``(groups,)`` buffer, one a parameter, that norms are written to."""
        if key not in self._buffers:
            device, dtype = key
            buffer = torch.zeros(self.count, dtype=dtype, device=device)
            pairs = list(zip(torch.split(buffer, self.unit_counts), self.units, strict=True))
            self._buffers[key] = buffer
            self._columns[key] = [values.view(units.column) for values, units in pairs]
            self._slots[key] = [values.view(units.slot) for values, units in pairs]
        return self._slots[key]

    def _remeasure(
        self, tensors: Sequence[Tensor | None], order: float, norms: Tensor, mask: Mask
    ) -> Tensor:
        """Exact norms in place of those in the mask."""
        if self.scope == "unit":
            exact = self._remeasure_units(tensors, order, norms, mask)
        elif self.scope == "tensor":
            exact = _remeasure_tensors(tensors, order, norms, mask)
        elif self.scope == "global":
            zeros = norms.new_zeros(len(tensors))
            exact = exact_norm(_remeasure_tensors(tensors, order, zeros, mask), order).view(1)
        else:  # tensors whose own norms are right may be of a layer whose norm is not
            zeros = norms.new_zeros(len(tensors))
            each = _remeasure_tensors(tensors, order, zeros, mask[self.layers])
            exact = torch.where(torch.from_numpy(mask), self.combine(each, order), norms.double())
        return cast_if_representable(exact, norms.dtype)

    def _remeasure_units(
        self, tensors: Sequence[Tensor | None], order: float, norms: Tensor, mask: Mask
    ) -> Tensor:
        exact = []
        each = zip(tensors, self.units, torch.split(norms, self.unit_counts), strict=True)
        for (tensor, units, own), start in zip(each, self.starts, strict=True):
            chosen = mask[start : start + units.count]
            if tensor is None or not chosen.any():
                exact.append(own.double())
            else:
                rows = units.matrix(tensor.to(norms.device))
                exact.append(remeasure(own, rows, order, chosen))
        return torch.cat(exact)


def _remeasure_tensors(
    tensors: Sequence[Tensor | None], order: float, norms: Tensor, mask: Mask
) -> Tensor:
    """One exact norm a tensor, float64, where the mask says so (one flag for all, or one each)."""
    flags = np.broadcast_to(mask, len(tensors)).reshape(-1, 1)
    return torch.cat(
        [
            own.double()
            if tensor is None
            else remeasure(own, tensor.to(norms.device).reshape(1, -1), order, flag)
            for tensor, own, flag in zip(tensors, torch.split(norms, 1), flags, strict=True)
        ]
    )


def refuse_complex(tensors: Sequence[Tensor | None]) -> None:
    """`UsageError` where elements have no order: there is no smallest complex number."""
    if any(t is not None and t.is_complex() for t in tensors):
        raise UsageError(
            "bounds that are not symmetric (a smallest and a largest element) make no sense for "
            "complex gradients, which have no order; give one bound, for the modulus"
        )
