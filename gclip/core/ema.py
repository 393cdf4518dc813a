"""Exponential moving averages with bias correction, as part of a strategy's memory.

::

    def remember(self, like):
        return {"mean": ema.empty(like)}

    def limit(self, seen, memory):  # inf before the first norm
        return self.ratio * ema.mean(memory["mean"])

    def learn(self, seen, clipped_norm, memory):
        return {"mean": ema.push(memory["mean"], clipped_norm, self.decay, seen.valid)}

An average is a plain dict of two tensors, so it is saved with the memory. Groups that are not
valid in a step keep theirs as it was, and their own count of steps.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor

Average: TypeAlias = dict[str, Any]


def empty(like: Tensor) -> Average:
    """An average of nothing, for groups `like` ``(…, groups)``."""
    return {"sum": torch.zeros_like(like), "weight": torch.zeros_like(like)}


def push(average: Average, value: Tensor, decay: float, valid: Tensor | None = None) -> Average:
    """The average with one more `value`: sum ← decay·sum + (1 − decay)·value, where `valid`.

    A value of inf enters as the largest number that its dtype has.

    Args:
        average: as `empty` or this made it.
        value: ``(…, groups)``.
        decay: share of the old mean that is kept, in [0, 1).
        valid: bool, which groups take part; None for all.
    """
    # One value that overflowed, as the square of a large norm does, would stay for ever.
    value = value.clamp(max=torch.finfo(value.dtype).max)
    # Not lerp(value, sum, decay), whose 1 − decay in float32 would not be that of the weight.
    total = torch.lerp(average["sum"], value, 1 - decay)
    weight = average["weight"] * decay + (1 - decay)
    if valid is not None:
        total = torch.where(valid, total, average["sum"])
        weight = torch.where(valid, weight, average["weight"])
    return {"sum": total, "weight": weight}


def mean(average: Average, nothing: float = math.inf) -> Tensor:
    """The bias-corrected mean, sum / (1 − decay^t); `nothing` where no value has been seen."""
    weight = average["weight"]
    return torch.where(weight > 0, average["sum"] / weight, nothing)
