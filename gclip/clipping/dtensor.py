"""Gradients spread over processes (the DTensors of FSDP2 and of tensor parallelism).

Each process holds a shard of a gradient, and strategies never notice: every norm is the full
gradient's, one and the same number in all processes, and clipping changes the shards in place. The
processes exchange one number a group, in one all-reduce for each mesh and measurement; a
`Transform` sees the full tensor, which is gathered for it.

The layout is the parameters'. A gradient laid out in another way (as summands that wait to be
added up, say) is first brought into it, as the optimizer would do. All processes go through the
same collectives whatever they hold, so that an empty shard keeps nobody waiting. Plain tensors
beside DTensors count as they are, and must be the same in all processes, as data-parallel
training leaves them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gclip.clipping.groups import Groups, refuse_complex
from gclip.clipping.norms import all_finite, norm_type, sum_type, total
from gclip.clipping.units import Axis, Units
from gclip.errors import UsageError

Home = tuple[Any, tuple[bool, ...]]
"""A mesh, and for each of its dimensions whether a tensor is split over it."""


def is_sharded(tensor: Any) -> bool:
    """Whether it is a DTensor; torch's module for these is not loaded for the question."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Any) -> Tensor:
    """This process's shard, sharing memory; a plain tensor as it is. Call under ``no_grad``."""
    if not is_sharded(tensor):
        return tensor  # type: ignore[no-any-return]
    shard: Tensor = tensor.to_local()
    wait = getattr(shard, "wait", None)  # a communication may still be under way
    return shard if wait is None else wait()


def whole(tensor: Any) -> Tensor:
    """The full tensor, gathered from all processes; a plain tensor as it is."""
    if not is_sharded(tensor):
        return tensor  # type: ignore[no-any-return]
    return tensor.full_tensor()  # type: ignore[no-any-return]


def align(params: Iterable[Any]) -> None:
    """Give every gradient the layout of its parameter.

    Raises:
        UsageError: a DTensor's gradient is a plain tensor, or the other way round.
    """
    for param in params:
        grad = param.grad
        if grad is None:
            continue
        if is_sharded(grad) != is_sharded(param):
            raise UsageError(
                f"a parameter is a {type(param.data).__name__} and its gradient a "
                f"{type(grad).__name__}; both must be DTensors, or neither"
            )
        if is_sharded(grad) and grad.placements != param.placements:
            param.grad = grad.redistribute(placements=param.placements)


def refuse_flat(params: Iterable[Tensor]) -> None:
    """`UsageError` for the first FSDP, whose parameters hide that they are shards."""
    if any(getattr(param, "_fsdp_flattened", False) for param in params):
        raise UsageError(
            "these parameters are shards of FullyShardedDataParallel, whose full norms cannot be "
            "told from them; use torch.distributed.fsdp.fully_shard"
        )


class Gathered:
    """A full copy of one gradient, for those who need all its elements.

    Attributes:
        values: the full gradient; `give_back` copies this process's share into the shard.
    """

    def __init__(self, grad: Any) -> None:
        self._grad = grad
        self.values = whole(grad)

    def give_back(self) -> None:
        local(self._grad).copy_(_share(self.values, self._grad, self._grad.placements))


def group(
    names: Sequence[str], params: Sequence[Tensor], scope: str, axes: Sequence[Axis] | None = None
) -> Groups:
    """The groups that `scope` makes of `params`, spread over processes or not."""
    if any(map(is_sharded, params)):
        return ShardedGroups(names, params, scope, axes)
    return Groups(names, [p.shape for p in params], scope, axes)


class ShardedGroups(Groups):
    """As `Groups`: norms of full tensors from their shards, factors for shards.

    Its methods take DTensors or their shards.
    """

    def __init__(
        self,
        names: Sequence[str],
        params: Sequence[Any],
        scope: str,
        axes: Sequence[Axis] | None = None,
    ) -> None:
        super().__init__(names, [p.shape for p in params], scope, axes)
        self._rows = [
            _rows(name, param, part) if part.count > 1 else None
            for name, param, part in zip(names, params, self._parts, strict=True)
        ]
        homes: dict[Home, list[int]] = {}
        for place, param in enumerate(params):
            if is_sharded(param):
                split = tuple(not each.is_replicate() for each in param.placements)
                if any(split):
                    homes.setdefault((param.device_mesh, split), []).append(place)
        self._homes = homes

    def norms(
        self,
        tensors: Sequence[Tensor | None],
        order: float,
        device: torch.device,
        *,
        wide: bool = False,
    ) -> Tensor:
        # Always wide: of several processes none can take a second look alone.
        if self.scope != "global":
            return super().norms(tensors, order, device, wide=True)
        each = self._each(tensors, order, device, True)
        return total(each, order, True) if len(each) else each.new_zeros(1)

    def look_again(
        self, tensors: Sequence[Tensor | None], order: float, norm: Tensor, *, zeros: bool = True
    ) -> tuple[Tensor, Tensor]:
        return norm, all_finite(norm)

    def tensor_norms(
        self, tensors: Sequence[Tensor | None], device: torch.device, *, again: bool = True
    ) -> Tensor:
        return self._each(tensors, 2.0, device, True)

    def ends(self, tensors: Sequence[Tensor | None], device: torch.device) -> tuple[Tensor, Tensor]:
        refuse_complex(tensors)
        blank = torch.tensor(-math.inf, dtype=norm_type(tensors), device=device)
        ends = [
            torch.aminmax(local(t)) if t is not None and local(t).numel() else (-blank, blank)
            for t in tensors
        ]
        low, high = (torch.stack([e[i].to(blank) for e in ends]) for i in (0, 1))
        least, most = -self._joined(-low, math.inf), self._joined(high, math.inf)
        there = least <= most
        return torch.where(there, least, 0.0), torch.where(there, most, 0.0)

    def split(self, values: Tensor) -> list[Tensor]:
        if self.scope != "unit":
            return super().split(values)
        parts = torch.split(values, self._units)
        mine = [
            part if rows is None else part[rows.to(part.device)]
            for part, rows in zip(parts, self._rows, strict=True)
        ]
        return [
            values.reshape(part.column if rows is None else part.column_of(len(rows)))
            for values, rows, part in zip(mine, self._rows, self._parts, strict=True)
        ]

    def summed(self, sums: Tensor) -> Tensor:
        return self._joined(sums, 1.0)

    def changed(self, clipped: Tensor) -> Sequence[bool]:
        return [True] * len(self.shapes)  # what is measured next, all processes measure

    # -- inside ----------------------------------------------------------------------------

    def _each(
        self, tensors: Sequence[Tensor | None], order: float, device: torch.device, wide: bool
    ) -> Tensor:
        shards = [None if t is None else local(t) for t in tensors]
        return self._joined(super()._each(shards, order, device, wide), order)

    def _unit_norms(
        self, tensors: Sequence[Tensor | None], order: float, device: torch.device, wide: bool
    ) -> Tensor:
        each = torch.zeros(self.count, dtype=norm_type(tensors), device=device)
        slots = torch.split(each, self._units)
        for tensor, slot, rows, part in zip(tensors, slots, self._rows, self._parts, strict=True):
            shard = None if tensor is None else local(tensor)
            if shard is None or not shard.numel():
                continue
            count = part.count if rows is None else len(rows)
            dtype = sum_type(shard, wide)
            mine = part.norm(shard, order, dtype=dtype, count=count).to(each)
            if rows is None:
                slot.copy_(mine)
            else:
                slot[rows.to(device)] = mine
        return self._joined(each, order, by_unit=True)

    def _joined(self, each: Tensor, order: float, by_unit: bool = False) -> Tensor:
        """Norms of shards into norms of full tensors: one number a tensor, or one a unit."""
        for (mesh, split), places in self._homes.items():
            index = torch.tensor(places)
            if by_unit:
                starts, units = self._starts, self._units
                index = torch.cat([torch.arange(units[p]) + int(starts[p]) for p in places])
            index = index.to(each.device)
            mine = each[index].double()
            if order == math.inf:
                # The largest of several may pass over a NaN; over inf it does not.
                mine = torch.where(torch.isnan(mine), math.inf, mine)
                joined = _all_reduce(mine, "max", mesh, split)
            else:
                joined = _all_reduce(mine.pow(order), "sum", mesh, split).pow(1 / order)
            each = each.index_copy(0, index, joined.to(each))
        return each


def _all_reduce(values: Tensor, how: str, mesh: Any, split: tuple[bool, ...]) -> Tensor:
    from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor

    placements = [Partial(how) if each else Replicate() for each in split]
    made = DTensor.from_local(values, mesh, placements, run_check=False)
    for dim, each in enumerate(split):
        if each:
            placements[dim] = Replicate()
            made = made.redistribute(placements=placements)
    result = local(made)
    if sum(split) > 1:
        # One after another the processes' sums may differ in their last bits: take the first's.
        result = local(distribute_tensor(result, mesh, placements))
    return result.to(values.device)


def _rows(name: str, param: Any, part: Units) -> Tensor | None:
    """Which indices of the units' dimension this process holds; None where all of them.

    Raises:
        UsageError: several dimensions tell the units, of which this process has a part.
    """
    if not is_sharded(param) or part.axis.dim is None:
        return None
    from torch.distributed.tensor import Replicate

    dim = part.axis.dim
    if not part.plain and not all(each.is_replicate() for each in param.placements):
        raise UsageError(
            f"{name} is of a transposed convolution with groups and spread over processes, so "
            "that no process holds whole units: use scope=tensor for it, or unit_dims"
        )
    own = [each if getattr(each, "dim", None) == dim else Replicate() for each in param.placements]
    if all(each.is_replicate() for each in own):
        return None
    return _share(torch.arange(param.shape[dim]), param, list(map(_along_first, own)))


def _along_first(placement: Any) -> Any:
    """The same placement for a tensor of which only that dimension is left."""
    from torch.distributed.tensor import Shard

    if placement.is_replicate() or placement.dim == 0:
        return placement
    factor = getattr(placement, "split_factor", None)
    return Shard(0) if factor is None else type(placement)(0, split_factor=factor)


def _share(full: Tensor, like: Any, placements: Sequence[Any]) -> Tensor:
    """This process's part of a tensor that all have in full; nothing is communicated."""
    from torch.distributed.tensor import distribute_tensor

    made = distribute_tensor(full.detach(), like.device_mesh, placements, src_data_rank=None)
    return local(made)
