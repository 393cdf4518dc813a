"""A sequence of norms fed to a strategy, without a model: what would its limits have been?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from gclip.clipping.answers import remembered
from gclip.clipping.float64_limits import exceeds_float32, for_dtype
from gclip.clipping.rules import decide, remember_step, transformed
from gclip.core.schedules import at_step
from gclip.core.seen import Elements, Seen
from gclip.core.strategy import Memory, Strategy, Transform

S = TypeVar("S", bound=Strategy)


def simulate(
    strategy: Strategy,
    norms: Iterable[Any],
    *,
    weight_norm: float = 1.0,
    size: float = 1.0,
    lr: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Feed a sequence of norms to a strategy, as if a model had shown them step by step.

    A `Transform` sees each group as a tensor of one element (a matrix of one by one).

    >>> import gclip
    >>> limits, clipped = gclip.simulate(gclip.create("norm", max_norm=2), [1.0, 3.0])
    >>> clipped.flatten().tolist()
    [1.0, 2.0]

    Args:
        strategy: what is asked.
        norms: one entry a step, each a number or a tensor ``(…, groups)``.
        weight_norm: of each group, for strategies that read it.
        size: how many elements each group has, for strategies that read it.
        lr: the learning rate, for strategies that read it.
        dtype: of the norms.

    Returns:
        The limits (NaN for a `Transform`, which has none) and the norms after clipping, each
        ``(steps, …, groups)`` of `dtype`.
    """
    entries = [torch.as_tensor(entry, dtype=dtype) for entry in norms]
    entries = [norm.view(1) if norm.ndim == 0 else norm for norm in entries]
    if isinstance(strategy, Transform):
        return _simulate_transform(strategy, entries, weight_norm, lr)
    memory: Memory | None = None
    limits, clipped = [], []
    for step, norm in enumerate(entries):
        now = resolve_at_step(strategy, step, len(entries), dtype)
        if memory is None:
            memory = remembered(now, torch.zeros_like(norm))
        finite = torch.isfinite(norm)
        valid = None if bool(finite.all()) else finite
        seen = Seen(
            norm, step=step, weight_norm=torch.full_like(norm, weight_norm),
            size=torch.full_like(norm, size), lr=lr, weight_decay=0.0, valid=valid,
            total_steps=len(entries),
        )  # fmt: skip
        decision = decide(now, seen, memory)
        memory = remember_step(now, seen, decision.clipped_norm, memory, valid)
        limits.append(decision.limit)
        clipped.append(decision.clipped_norm)
    return torch.stack(limits), torch.stack(clipped)


def _simulate_transform(
    strategy: Transform, entries: list[Tensor], weight: float, lr: float
) -> tuple[Tensor, Tensor]:
    memory: Memory | None = None
    norms_after = []
    for step, norm in enumerate(entries):
        now = resolve_at_step(strategy, step, len(entries), norm.dtype)
        values = norm.unsqueeze(-1)
        values = values.unsqueeze(-1) if strategy.view == "matrix" else values
        if memory is None:
            memory = remembered(now, torch.zeros_like(values))
        finite = torch.isfinite(values)
        seen = Elements(values, step=step, weight=torch.full_like(values, weight), lr=lr)
        values, memory = transformed(now, seen, memory, None if bool(finite.all()) else finite)
        norms_after.append(values.abs().reshape(norm.shape))
    clipped = torch.stack(norms_after)
    return torch.full_like(clipped, math.nan), clipped


def resolve_at_step(strategy: S, step: int, total: int, dtype: torch.dtype) -> S:
    """The strategy as it is asked at `step` of `total` about norms of `dtype`.

    Args:
        strategy: whose schedules are looked up.
        step: from 0.
        total: how many steps there will be, if that is known.
        dtype: of the norms.
    """
    now = at_step(strategy, step, total)
    return for_dtype(now, dtype) if exceeds_float32(now) else now
