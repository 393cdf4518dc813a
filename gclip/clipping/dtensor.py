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
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gclip.clipping.group_norms import refuse_complex
from gclip.clipping.groups import Groups
from gclip.clipping.norms import all_finite, norm_type, sum_type, total
from gclip.clipping.units import Axis, Units
from gclip.errors import UsageError

MeshSplit: TypeAlias = tuple[Any, tuple[bool, ...]]
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
        """Copy this process's part of the full gradient into its shard."""
        local(self._grad).copy_(_share(self.values, self._grad, self._grad.placements))


def group(
    names: Sequence[str], params: Sequence[Tensor], scope: str, axes: Sequence[Axis] | None = None
) -> Groups:
    """The groups that `scope` makes of `params`, spread over processes or not.

    Args:
        names: of the parameters.
        params: whose gradients share norms.
        scope: of the strategy.
        axes: each parameter's dimension of units; by default as its shape says.
    """
    if any(map(is_sharded, params)):
        return ShardedGroups(names, params, scope, axes)
    return Groups(names, [p.shape for p in params], scope, axes)


class ShardedGroups(Groups):
    """As `Groups`: norms of full tensors from their shards, factors for shards.

    Its methods take DTensors or their shards. What is measured is always summed in float64: of
    several processes none can take a second look alone.
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
            _rows(name, param, units) if units.count > 1 else None
            for name, param, units in zip(names, params, self.units, strict=True)
        ]
        self._split: dict[MeshSplit, list[int]] = {}
        for index, param in enumerate(params):
            if is_sharded(param):
                split = tuple(not each.is_replicate() for each in param.placements)
                if any(split):
                    self._split.setdefault((param.device_mesh, split), []).append(index)

    def norms(
        self,
        tensors: Sequence[Tensor | None],
        order: float,
        device: torch.device,
        *,
        float64: bool = True,
    ) -> Tensor:
        """Each group's p-norm over all processes, ``(groups,)``; as `Groups.norms`.

        Args:
            tensors: one a parameter, or None.
            order: p.
            device: of the norms.
            float64: taken for granted: shards are summed in float64.
        """
        if self.scope != "global":
            return super().norms(tensors, order, device, float64=True)
        norms = self._tensor_norms(tensors, order, device, True)
        return total(norms, order, True) if len(norms) else norms.new_zeros(1)

    def recheck(
        self,
        tensors: Sequence[Tensor | None],
        order: float,
        norms: Tensor,
        *,
        zeros: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """The norms as they are, and whether all are finite.

        Args:
            tensors: one a parameter, or None.
            order: p.
            norms: as measured, ``(groups,)``.
            zeros: whether sums that vanished matter.
        """
        return norms, all_finite(norms)

    def tensor_norms(
        self,
        tensors: Sequence[Tensor | None],
        device: torch.device,
        *,
        recheck: bool = True,
    ) -> Tensor:
        """Each full tensor's L2 norm, ``(tensors,)``."""
        return self._tensor_norms(tensors, 2.0, device, True)

    def extremes(
        self, tensors: Sequence[Tensor | None], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Each full tensor's smallest and largest element, ``(tensors,)``; 0 for none."""
        refuse_complex(tensors)
        none = torch.tensor(-math.inf, dtype=norm_type(tensors), device=device)
        pairs = [
            torch.aminmax(local(t)) if t is not None and local(t).numel() else (-none, none)
            for t in tensors
        ]
        low, high = (torch.stack([pair[i].to(none) for pair in pairs]) for i in (0, 1))
        least, most = -self._reduced_over(-low, math.inf), self._reduced_over(high, math.inf)
        present = least <= most
        return torch.where(present, least, 0.0), torch.where(present, most, 0.0)

    def split(self, values: Tensor) -> list[Tensor]:
        """A ``(groups,)`` tensor as one entry a parameter, to broadcast against its shard."""
        if self.scope != "unit":
            return super().split(values)
        split = []
        pairs = zip(torch.split(values, self.unit_counts), self._rows, self.units, strict=True)
        for own, rows, units in pairs:
            if rows is None:
                split.append(own.reshape(units.column))
            else:
                split.append(own[rows.to(own.device)].reshape(units.column_of(len(rows))))
        return split

    def summed(self, sums: Tensor) -> Tensor:
        """Sums over each tensor's elements, ``(tensors, …)``, of all processes together."""
        return self._reduced_over(sums, 1.0)

    def changed(self, clipped: Tensor) -> Sequence[bool]:
        """True for every parameter: what is measured next, all processes measure."""
        return [True] * len(self.shapes)

    # -- inside ----------------------------------------------------------------------------

    def _tensor_norms(
        self, tensors: Sequence[Tensor | None], order: float, device: torch.device, float64: bool
    ) -> Tensor:
        shards = [None if t is None else local(t) for t in tensors]
        return self._reduced_over(super()._tensor_norms(shards, order, device, float64), order)

    def _unit_norms(
        self, tensors: Sequence[Tensor | None], order: float, device: torch.device, float64: bool
    ) -> Tensor:
        norms = torch.zeros(self.count, dtype=norm_type(tensors), device=device)
        slots = torch.split(norms, self.unit_counts)
        for tensor, slot, rows, units in zip(tensors, slots, self._rows, self.units, strict=True):
            shard = None if tensor is None else local(tensor)
            if shard is None or not shard.numel():
                continue
            count = units.count if rows is None else len(rows)
            dtype = sum_type(shard, float64)
            own = units.norm(shard, order, dtype=dtype, count=count).to(norms)
            if rows is None:
                slot.copy_(own)
            else:
                slot[rows.to(device)] = own
        return self._reduced_over(norms, order, by_unit=True)

    def _reduced_over(self, norms: Tensor, order: float, by_unit: bool = False) -> Tensor:
        """Norms of shards into norms of full tensors: one number a tensor, or one a unit."""
        for (mesh, split), indices in self._split.items():
            index = torch.tensor(indices)
            if by_unit:
                starts, counts = self.starts, self.unit_counts
                index = torch.cat([torch.arange(counts[i]) + int(starts[i]) for i in indices])
            index = index.to(norms.device)
            own = norms[index].double()
            if order == math.inf:
                # The largest of several may pass over a NaN; over inf it does not.
                own = torch.where(torch.isnan(own), math.inf, own)
                reduced = _all_reduce(own, "max", mesh, split)
            else:
                reduced = _all_reduce(own.pow(order), "sum", mesh, split).pow(1 / order)
            norms = norms.index_copy(0, index, reduced.to(norms))
        return norms


def _all_reduce(values: Tensor, how: str, mesh: Any, split: tuple[bool, ...]) -> Tensor:
    from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor

    placements = [Partial(how) if each else Replicate() for each in split]
    reduced = DTensor.from_local(values, mesh, placements, run_check=False)
    for dim, each in enumerate(split):
        if each:
            placements[dim] = Replicate()
            reduced = reduced.redistribute(placements=placements)
    result = local(reduced)
    if sum(split) > 1:
        # One after another the processes' sums may differ in their last bits: take the first's.
        result = local(distribute_tensor(result, mesh, placements))
    return result.to(values.device)


def _rows(name: str, param: Any, units: Units) -> Tensor | None:
    """Which indices of the units' dimension this process holds; None where all of them.

    Raises:
        UsageError: several dimensions tell the units, of which this process has a part.
    """
    if not is_sharded(param) or units.axis.dim is None:
        return None
    from torch.distributed.tensor import Replicate

    dim = units.axis.dim
    if not units.plain and not all(each.is_replicate() for each in param.placements):
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

    return local(distribute_tensor(full.detach(), like.device_mesh, placements, src_data_rank=None))
