"""Scopes: which gradients share one norm, how norms are measured, how factors are applied.

A `Groups` is laid out once for a list of parameters and a scope; after that `norms` and `scale`
turn gradients into ``(groups,)`` norms and back. Groups are numbered in the order of the
parameters: one for ``global``, one per module for ``layer``, one per parameter for ``tensor`` and
``element``, and for ``unit`` one per output of its module: an output row of a Linear ``(out, in)``,
a filter of a convolution ``(out, in, kh, kw)``, the whole of a bias; see `gclip.clipping.units`.
Norms are float32, and float64 where any gradient is.

Cost: the gradients are read once for the norms and written once for the factors, by whichever
call is fastest on the device: one dot product per tensor on a CPU, multi-tensor kernels on a GPU.
Nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gclip.clipping.norms import (
    ALL_FINITE,
    all_finite,
    exact_norm,
    fitting,
    global_norm,
    lost,
    multiply,
    norm_type,
    smallest,
    sound,
    sum_type,
    tensor_norms,
)
from gclip.clipping.units import WHOLE, Axis, Units, usual
from gclip.core.host import on_host
from gclip.errors import UsageError

_Home = tuple[torch.device, torch.dtype]


class Groups:
    """The groups that a scope makes of some parameters.

    Args:
        names: the parameters' dotted names, which tell their layers.
        shapes: their shapes.
        scope: one of `gclip.core.strategy.SCOPES`.
        axes: where each parameter's units lie; by default along dimension 0.

    Attributes:
        count: how many groups there are.
        labels: a name for each group, in order.
    """

    def __init__(
        self,
        names: Sequence[str],
        shapes: Sequence[torch.Size],
        scope: str,
        axes: Sequence[Axis] | None = None,
    ) -> None:
        self.names, self.shapes, self.scope = tuple(names), tuple(shapes), scope
        self._sizes = [math.prod(shape) for shape in shapes]
        self.axes = tuple(axes or map(usual, shapes))
        self._parts = [
            Units(shape, axis if scope == "unit" else WHOLE)
            for shape, axis in zip(shapes, self.axes, strict=True)
        ]
        self._units = [part.count for part in self._parts]
        if scope == "global":
            self.labels: tuple[str, ...] = ("all",)
        elif scope == "layer":
            self.labels = tuple(dict.fromkeys(map(layer_of, names)))
        elif scope == "unit":
            pairs = zip(names, self._parts, strict=True)
            self.labels = tuple(each for name, part in pairs for each in part.labels(name))
        else:
            self.labels = self.names
        self.count = len(self.labels)
        self._starts = np.cumsum([0, *self._units[:-1]]) if self._units else np.zeros(0, int)
        self._dims = [part.reduced for part in self._parts]
        # Norms of units can be taken of the tensors as they are, and none is of one element.
        self._simple = all(part.plain and part.reduced != () for part in self._parts)
        self._counts: dict[tuple[_Home, tuple[bool, ...] | None], Tensor] = {}
        self._index: dict[torch.device, Tensor] = {}
        self._buffer: dict[_Home, Tensor] = {}
        self._views: dict[_Home, list[Tensor]] = {}
        self._columns: dict[_Home, list[Tensor]] = {}

    # -- measuring -------------------------------------------------------------------------

    def norms(
        self,
        tensors: Sequence[Tensor | None],
        order: float,
        device: torch.device,
        *,
        wide: bool = False,
    ) -> Tensor:
        """Each group's p-norm, ``(groups,)`` on `device`. A missing tensor counts zero.

        For the scope ``element``, each tensor's largest absolute element. `wide` sums in float64:
        slower on a CPU, and needed only where float32 sums of squares overflow: see `measure`.
        """
        if self.scope == "element":
            return self._each(tensors, math.inf, device, wide)
        if self.scope == "unit":
            return self._unit_norms(tensors, order, device, wide)
        if self.scope == "global":
            return global_norm([t for t in tensors if t is not None], order, device, wide)
        each = self._each(tensors, order, device, wide)
        if self.scope == "tensor":
            return each
        return self._combine(each, order)

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
            zeros: whether a unit of norm 0 beside larger ones of its tensor is among those; many
                are dead and really zero, and it would be a tiny one among large ones.
        """
        return self.look_again(tensors, order, self.norms(tensors, order, device), zeros=zeros)

    def look_again(
        self, tensors: Sequence[Tensor | None], order: float, norm: Tensor, *, zeros: bool = True
    ) -> tuple[Tensor, Tensor]:
        """The second half of `measure`, of norms that have been taken."""
        if not on_host(norm):
            return norm, all_finite(norm)
        if sound(norm, order):
            return norm, ALL_FINITE
        if order == math.inf or self.scope == "element":
            return norm, all_finite(norm)
        units = None
        if self.scope == "unit" and not zeros:
            if only_dead(norm, order, self._starts):
                return norm, ALL_FINITE
            units = np.array(self._units)
        bad = untrusted(norm, order, units)
        if not bad.any():
            return norm, ALL_FINITE
        norm = self._again(tensors, order, norm, bad)
        return norm, all_finite(norm)

    def tensor_norms(
        self, tensors: Sequence[Tensor | None], device: torch.device, *, again: bool = True
    ) -> Tensor:
        """Each tensor's L2 norm whatever the scope, ``(tensors,)``, measured as `measure` does
        (or, where not `again`, once)."""
        each = self._each(tensors, 2.0, device, False)
        if not again or not lost(each, 2.0):
            return each
        exact = _each_again(tensors, 2.0, each, untrusted(each, 2.0))
        return fitting(exact, each.dtype)

    def ends(self, tensors: Sequence[Tensor | None], device: torch.device) -> tuple[Tensor, Tensor]:
        """Each tensor's smallest and largest element, ``(tensors,)``; 0 for none."""
        refuse_complex(tensors)
        blank = torch.zeros((), dtype=norm_type(tensors), device=device)
        ends = [torch.aminmax(t) if t is not None and t.numel() else (blank,) * 2 for t in tensors]
        least, most = (torch.stack([e[i].to(blank) for e in ends]) for i in (0, 1))
        return least, most

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
        key = ((device, dtype), mask)
        if key not in self._counts:
            self._counts[key] = self._count_elements(device, dtype, mask)
        return self._counts[key]

    def _count_elements(
        self, device: torch.device, dtype: torch.dtype, mask: tuple[bool, ...] | None
    ) -> Tensor:
        sizes = torch.tensor(self._sizes, dtype=dtype, device=device)
        if mask is not None:
            sizes = sizes * torch.tensor(mask, device=device)
        if self.scope == "global":
            return sizes.sum(dim=0, keepdim=True)
        if self.scope == "layer":
            return self._combine(sizes, 1.0)
        units = torch.tensor(self._units, device=device)
        return self.spread(sizes / units)

    def spread(self, each: Tensor) -> Tensor:
        """A value a parameter as a value a group; only where no group has several parameters."""
        if self.scope != "unit":
            return each
        units = torch.tensor(self._units, device=each.device)
        return torch.repeat_interleave(each, units, output_size=self.count)

    def present(self, tensors: Sequence[Tensor | None], device: torch.device) -> Tensor:
        """Bool ``(groups,)``: True where any of the group's tensors is there."""
        there = torch.tensor([t is not None for t in tensors], dtype=torch.float32)
        there = there.to(device)
        if self.scope == "global":
            return there.amax(dim=0, keepdim=True) > 0
        if self.scope == "layer":
            return self._combine(there, 1.0) > 0
        return self.spread(there) > 0

    def batched_norms(self, tensors: Sequence[Tensor | None], order: float, like: Tensor) -> Tensor:
        """Norms of many gradients at once: tensors ``(batch, *shape)`` to ``(batch, groups)``.

        A missing tensor counts zero; `like` is any tensor ``(batch,)`` of their device. float64
        where gradients are, and on a CPU where float32 sums of powers overflow or vanish.
        """
        each = [
            like.new_zeros((len(like), part.count), dtype=torch.float32)
            if tensor is None
            else _batched_norm(part.matrix(tensor, 1), order).to(like.device)
            for tensor, part in zip(tensors, self._parts, strict=True)
        ]
        if any(norm.dtype == torch.float64 for norm in each):
            each = [norm.double() for norm in each]
        joined = torch.cat(each, dim=1)
        if self.scope == "global":
            return _batched_norm(joined.unsqueeze(1), order)
        if self.scope == "layer":
            return torch.stack([self._combine(row, order) for row in joined])
        return joined

    def batched_sums(
        self, tensors: Sequence[Tensor | None], weights: Tensor, *, exact: bool = False
    ) -> list[Tensor | None]:
        """The sums of many gradients, weighted by ``(batch, groups)``: ``(*shape)`` a tensor.

        The tensors are only read, and summed in float32 at least. `exact` multiplies element by
        element, which is slower and lets 0 · inf be NaN on every machine.
        """
        if self.scope == "global":
            shares = [weights] * len(self.shapes)
        elif self.scope == "layer":
            shares = list(torch.split(weights[:, self._layer_index(weights.device)], 1, dim=1))
        else:
            shares = list(torch.split(weights, self._units, dim=1))
        sums: list[Tensor | None] = []
        for tensor, weight, part, shape in zip(
            tensors, shares, self._parts, self.shapes, strict=True
        ):
            if tensor is None:
                sums.append(None)
                continue
            total = _weighted_sum(part.matrix(tensor, 1), weight, exact)
            sums.append(part.from_matrix(total, shape))
        return sums

    def batched_split(self, values: Tensor) -> list[Tensor]:
        """``(batch, groups)`` as one entry a parameter, each ``(batch,)`` or ``(batch, units)``."""
        if self.scope == "global":
            return [values[:, 0]] * len(self.shapes)
        if self.scope == "layer":
            return list(values[:, self._layer_index(values.device)].unbind(1))
        if self.scope == "unit":
            return list(torch.split(values, self._units, dim=1))
        return list(values.unbind(1))

    def summed(self, sums: Tensor) -> Tensor:
        """Sums over each tensor's elements, ``(tensors, …)``, of all processes that hold some."""
        return sums

    # -- applying --------------------------------------------------------------------------

    def views(self, tensors: Sequence[Any]) -> list[Any]:
        """The tensors, sharing memory, with the dimensions that the entries of `split` have.

        Most are returned as they are.
        """
        if self._simple:
            return list(tensors)
        return [
            None if tensor is None else part.view(tensor)
            for tensor, part in zip(tensors, self._parts, strict=True)
        ]

    def split(self, values: Tensor) -> list[Tensor]:
        """A ``(groups,)`` tensor as one entry a parameter, to broadcast against its `views`.

        Use the entries before the next call: for units they are views of one reused buffer.
        """
        if self.scope == "global":
            return [values.reshape(())] * len(self.shapes)
        if self.scope == "layer":
            return list(values[self._layer_index(values.device)].unbind(0))
        if self.scope == "unit":
            if torch.compiler.is_compiling():
                each = zip(torch.split(values, self._units), self._parts, strict=True)
                return [one.reshape(part.column) for one, part in each]
            home = (values.device, values.dtype)
            self._slots(home)
            self._buffer[home].copy_(values)
            return self._columns[home]
        return list(values.unbind(0))

    def scale(self, tensors: Sequence[Tensor | None], factor: Tensor, clipped: Tensor) -> None:
        """Multiply every group by its factor ``(groups,)``, in place, where any is `clipped`."""
        if self.scope == "global":
            multiply([t for t in tensors if t is not None], factor.reshape(()))
            return
        there, factors, device = [], [], factor.device
        for tensor, each, change in zip(
            self.views(tensors), self.split(factor), self.changed(clipped), strict=True
        ):
            if tensor is not None and change:
                there.append(tensor)
                factors.append(each if tensor.device == device else each.to(tensor.device))
        if there:
            torch._foreach_mul_(there, factors)

    def changed(self, clipped: Tensor) -> Sequence[bool]:
        """For each parameter, whether any of its groups is `clipped`; on a GPU, always True.

        On a CPU, tensors of which no group changes need not be written to.
        """
        every = len(self.shapes)
        if not on_host(clipped):
            return [True] * every
        mask = clipped.numpy()
        if self.scope == "global":
            return [bool(mask[0])] * every
        if self.scope == "layer":
            return list(mask[self._layer_index(clipped.device).numpy()])
        if self.scope == "unit":
            return list(np.logical_or.reduceat(mask, self._starts))
        return list(mask)

    # -- inside ----------------------------------------------------------------------------

    def _each(
        self, tensors: Sequence[Tensor | None], order: float, device: torch.device, wide: bool
    ) -> Tensor:
        """One norm a tensor, ``(tensors,)``."""
        there = [t for t in tensors if t is not None]
        if len(there) == len(tensors):
            return tensor_norms(there, order, device, wide)
        zero = torch.zeros((), dtype=norm_type(there), device=device)
        # Not by indices, which would be copied to a GPU and wait for it.
        found = iter(tensor_norms(there, order, device, wide).unbind(0) if there else ())
        return torch.stack([zero if t is None else next(found) for t in tensors])

    def _unit_norms(
        self, tensors: Sequence[Tensor | None], order: float, device: torch.device, wide: bool
    ) -> Tensor:
        if torch.compiler.is_compiling() or not self._simple:
            return self._unit_norms_apart(tensors, order, device, wide)
        norm = torch.linalg.vector_norm
        plain = (torch.float32, device)
        whole = not wide and all(self._sizes)
        if whole and all(t is not None and (t.dtype, t.device) == plain for t in tensors):
            home, slots = (device, torch.float32), self._slots((device, torch.float32))
            for tensor, slot, dims in zip(tensors, slots, self._dims, strict=True):
                norm(tensor, order, dims, out=slot)
            return self._buffer[home].clone()
        home = (device, norm_type(tensors))
        slots = self._slots(home)
        for tensor, slot, dims in zip(tensors, slots, self._dims, strict=True):
            if tensor is None or tensor.numel() == 0:
                slot.zero_()
                continue
            slot.copy_(norm(tensor, order, dims, dtype=sum_type(tensor, wide)))
        return self._buffer[home].clone()

    def _unit_norms_apart(
        self, tensors: Sequence[Tensor | None], order: float, device: torch.device, wide: bool
    ) -> Tensor:
        """The same without memory that is used again, which compilers take for one and the same."""
        norms, dtype = [], norm_type(tensors)
        for tensor, part in zip(tensors, self._parts, strict=True):
            if tensor is None or tensor.numel() == 0:
                norms.append(torch.zeros(part.count, dtype=dtype, device=device))
                continue
            each = part.norm(tensor, order, dtype=sum_type(tensor, wide))
            norms.append(each.to(device, dtype))
        return torch.cat(norms)

    def _slots(self, home: _Home) -> list[Tensor]:
        """Views of one ``(groups,)`` buffer, one a parameter, that norms are written to."""
        if home not in self._buffer:
            device, dtype = home
            buffer = torch.zeros(self.count, dtype=dtype, device=device)
            each = list(zip(torch.split(buffer, self._units), self._parts, strict=True))
            self._buffer[home] = buffer
            self._columns[home] = [one.view(part.column) for one, part in each]
            self._views[home] = [one.view(part.slot) for one, part in each]
        return self._views[home]

    def _again(
        self,
        tensors: Sequence[Tensor | None],
        order: float,
        norm: Tensor,
        bad: npt.NDArray[np.bool_],
    ) -> Tensor:
        """Exact norms in place of the `bad` ones."""
        if self.scope == "unit":
            exact = self._units_again(tensors, order, norm, bad)
        elif self.scope == "tensor":
            exact = _each_again(tensors, order, norm, bad)
        elif self.scope == "global":
            each = _each_again(tensors, order, norm.new_zeros(len(tensors)), bad)
            exact = exact_norm(each, order).view(1)
        else:  # tensors whose own norms are right may be of a layer whose norm is not
            each = _each_again(tensors, order, norm.new_zeros(len(tensors)), bad[self.layers])
            exact = torch.where(torch.from_numpy(bad), self._combine(each, order), norm.double())
        return fitting(exact, norm.dtype)

    def _units_again(
        self,
        tensors: Sequence[Tensor | None],
        order: float,
        norm: Tensor,
        bad: npt.NDArray[np.bool_],
    ) -> Tensor:
        """For units: only the `bad` ones are read again, and of zeros nothing is computed."""
        exact = norm.double()
        ends = [*self._starts.tolist(), self.count]
        for place in np.flatnonzero(np.logical_or.reduceat(bad, self._starts)).tolist():
            tensor, start, end = tensors[place], ends[place], ends[place + 1]
            if tensor is None or not tensor.numel():
                continue
            rows = torch.from_numpy(np.flatnonzero(bad[start:end]))
            few = self._parts[place].matrix(tensor.to(norm.device)).index_select(0, rows)
            if bool(few.any()):
                exact[start + rows] = exact_norm(few, order, (1,))
        return exact

    def _combine(self, each: Tensor, order: float) -> Tensor:
        """Norms of tensors into norms of layers."""
        index = self._layer_index(each.device)
        zeros = each.new_zeros(self.count)
        if order == math.inf:
            return zeros.scatter_reduce(0, index, each, "amax")
        # Relative to the largest, so that the powers neither overflow nor vanish.
        top = zeros.scatter_reduce(0, index, each, "amax")
        safe = torch.where((top > 0) & torch.isfinite(top), top, 1.0)
        ratio = each / safe[index]
        return safe * zeros.index_add(0, index, ratio**order) ** (1 / order)

    @property
    def layers(self) -> list[int]:
        """Of each parameter, the group of its layer; for the scope ``layer``."""
        place = {label: i for i, label in enumerate(self.labels)}
        return [place[layer_of(name)] for name in self.names]

    def _layer_index(self, device: torch.device) -> Tensor:
        if device not in self._index:
            self._index[device] = torch.tensor(self.layers, device=device)
        return self._index[device]


def only_dead(norm: Tensor, order: float, starts: npt.NDArray[np.int_]) -> bool:
    """Whether all norms on the host are to be trusted, but for zeros beside larger units.

    `starts` are the places of each tensor's first unit.
    """
    values, least = norm.numpy(), smallest(norm.dtype, order)
    largest = np.maximum.reduceat(values, starts)
    if not (least <= largest.min() and largest.max() < math.inf):
        return False
    return bool(np.count_nonzero(values >= least) == np.count_nonzero(values))


def untrusted(
    norm: Tensor, order: float, units: npt.NDArray[np.int_] | None = None
) -> npt.NDArray[np.bool_]:
    """The norms ``(…, groups)`` on the host that `gclip.clipping.norms.lost` is about.

    Given how many `units` each tensor has, a zero beside larger ones of its tensor is trusted.
    """
    values, least = norm.numpy(), smallest(norm.dtype, order)
    bad: npt.NDArray[np.bool_] = ~((values >= least) & (values < math.inf))
    if units is not None:
        starts = np.add.accumulate(units) - units
        large = np.maximum.reduceat(values, starts, axis=-1) >= least
        bad &= (values != 0) | ~large.repeat(units, axis=-1)
    return bad


def _each_again(
    tensors: Sequence[Tensor | None], order: float, norm: Tensor, bad: npt.NDArray[np.bool_]
) -> Tensor:
    """One exact norm a tensor, float64, where it is `bad` (one flag for all, or one each)."""
    exact = norm.double()
    for place in np.flatnonzero(np.broadcast_to(bad, len(tensors))).tolist():
        if (tensor := tensors[place]) is not None:
            exact[place] = exact_norm(tensor.to(norm.device), order)
    return exact


def refuse_complex(tensors: Sequence[Tensor | None]) -> None:
    """`UsageError` where elements have no order: there is no smallest complex number."""
    if any(t is not None and t.is_complex() for t in tensors):
        raise UsageError(
            "bounds that are not symmetric (a smallest and a largest element) make no sense for "
            "complex gradients, which have no order; give one bound, for the modulus"
        )


def _batched_norm(flat: Tensor, order: float) -> Tensor:
    """The norms over the last dimension, float32 at least; see `Groups.batched_norms`."""
    if not flat.shape[-1]:
        return torch.zeros(flat.shape[:-1], dtype=norm_type([flat]), device=flat.device)
    norm: Tensor = torch.linalg.vector_norm(flat, order, dim=-1, dtype=sum_type(flat))
    if not on_host(norm) or order == math.inf:
        return norm if flat.dtype == torch.float64 else norm.float()
    kind = torch.finfo(norm.dtype)
    least = 8 * (kind.tiny / kind.eps) ** (1 / order)  # below, powers of elements have vanished
    if math.isfinite(float(norm.max())) and float(norm.min()) >= least:
        return norm
    size = flat.abs() if flat.is_complex() else flat
    peak = torch.maximum(size.amax(dim=-1), size.amin(dim=-1).neg()).double()
    again = (~torch.isfinite(norm) | (norm < least)) & (peak > 0)  # neither zeros nor NaN
    if not bool(again.any()):
        return norm
    wide = flat[again].to(torch.complex128 if flat.is_complex() else torch.float64)
    # Relative to the largest, so that the powers neither overflow nor vanish.
    top = peak[again]
    ratio = torch.linalg.vector_norm(wide / top.unsqueeze(-1), order, dim=-1) * top
    norm = norm.double()
    norm[again] = torch.where(torch.isfinite(top), ratio, math.inf)
    return norm


def _weighted_sum(rows: Tensor, weight: Tensor, exact: bool) -> Tensor:
    """``(batch, units, elements)``, weighted by ``(batch, units)``, as ``(units, elements)``."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    if weight.dtype == torch.float64 and weight.device.type == "cpu":
        dtype = torch.promote_types(dtype, torch.float64)
    rows, weight = rows.to(dtype), weight.to(rows.device, dtype)
    if exact:
        return (rows * weight.unsqueeze(-1)).sum(dim=0)
    if weight.shape[1] == 1:
        return (weight.squeeze(1) @ rows.squeeze(1)).unsqueeze(0)
    return torch.einsum("bu,bue->ue", weight, rows)


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
