"""Norms and weighted sums of many examples' gradients at once, for the groups of a scope."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gclip.clipping.float64_norms import recheck
from gclip.clipping.group_layout import GroupLayout
from gclip.clipping.norms import norm_type, sum_type


def example_norms(
    groups: GroupLayout, grads: Sequence[Tensor | None], order: float, like: Tensor
) -> Tensor:
    """The norms of gradients ``(examples, *shape)``, ``(examples, groups)``.

    float64 where gradients are, and on a CPU where float32 sums of powers overflow or vanish.

    Args:
        groups: of one example's gradients.
        grads: one a parameter; None counts zero.
        order: p.
        like: any tensor ``(examples,)`` of the gradients' device.
    """
    norms = [
        like.new_zeros((len(like), units.count), dtype=torch.float32)
        if grad is None
        else _row_norms(units.matrix(grad, 1), order).to(like.device)
        for grad, units in zip(grads, groups.units, strict=True)
    ]
    if any(norm.dtype == torch.float64 for norm in norms):
        norms = [norm.double() for norm in norms]
    joined = torch.cat(norms, dim=1)
    if groups.scope == "global":
        return _row_norms(joined.unsqueeze(1), order)
    return groups.combine(joined, order) if groups.scope == "layer" else joined


def weighted_sums(
    groups: GroupLayout, grads: Sequence[Tensor | None], weights: Tensor, *, exact: bool = False
) -> list[Tensor | None]:
    """The sums of gradients ``(examples, *shape)`` over the examples, ``(*shape)`` each.

    The gradients are only read, and summed in float32 at least.

    Args:
        groups: of one example's gradients.
        grads: one a parameter, or None.
        weights: of each example's groups, ``(examples, groups)``.
        exact: multiply element by element, which is slower and lets 0 · inf be NaN on every
            machine.
    """
    if groups.scope == "global":
        split = [weights] * len(groups.shapes)
    elif groups.scope == "layer":
        split = list(torch.split(weights[:, groups.layer_indices(weights.device)], 1, dim=1))
    else:
        split = list(torch.split(weights, groups.unit_counts, dim=1))
    sums: list[Tensor | None] = []
    for grad, weight, units, shape in zip(grads, split, groups.units, groups.shapes, strict=True):
        if grad is None:
            sums.append(None)
        else:
            total = _weighted_sum(units.matrix(grad, 1), weight, exact)
            sums.append(units.from_matrix(total, shape))
    return sums


def _row_norms(rows: Tensor, order: float) -> Tensor:
    """The norms over the last dimension, float32 at least."""
    dtype = norm_type([rows])
    if not rows.shape[-1]:
        return torch.zeros(rows.shape[:-1], dtype=dtype, device=rows.device)
    norms: Tensor = torch.linalg.vector_norm(rows, order, dim=-1, dtype=sum_type(rows))
    # A limit beside a norm of 1e30 makes a factor that float32 does not hold.
    return recheck(norms.to(dtype), rows, order, keep_float64=True)


def _weighted_sum(rows: Tensor, weight: Tensor, exact: bool) -> Tensor:
    """``(examples, units, elements)``, weighted by ``(examples, units)``, as ``(units, …)``."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    if weight.dtype == torch.float64 and weight.device.type == "cpu":
        dtype = torch.promote_types(dtype, torch.float64)
    rows, weight = rows.to(dtype), weight.to(rows.device, dtype)
    if exact:
        return (rows * weight.unsqueeze(-1)).sum(dim=0)
    if weight.shape[1] == 1:
        return (weight.squeeze(1) @ rows.squeeze(1)).unsqueeze(0)
    return torch.einsum("bu,bue->ue", weight, rows)
