"""The last N norms of each group, as part of a strategy's memory, with their mean and deviation.

For a quantile of a window use `gclip.core.quantile`. Groups that are not valid in a step keep their
window as it was.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

Window: TypeAlias = dict[str, Any]


def empty(like: Tensor, size: int) -> Window:
    """A window without norms, for groups `like` ``(…, groups)``, that will hold `size`."""
    return {
        "values": like.new_zeros((*like.shape, size)),
        "count": torch.zeros_like(like, dtype=torch.long),
    }


def push(window: Window, norm: Tensor, valid: Tensor | None = None) -> Window:
    """The window with one more norm ``(…, groups)`` where `valid`, in place of the oldest."""
    values, seen = window["values"], window["count"]
    place = (seen % values.shape[-1]).unsqueeze(-1)
    if valid is not None:
        norm = torch.where(valid, norm, values.gather(-1, place).squeeze(-1))
    return {
        "values": values.scatter(-1, place, norm.unsqueeze(-1)),
        "count": seen + (1 if valid is None else valid.long()),
    }


def count(window: Window) -> Tensor:
    """How many norms the window holds, ``(…, groups)`` int64: at most its size."""
    filled: Tensor = window["count"].clamp(max=window["values"].shape[-1])
    return filled


def mean(window: Window) -> Tensor:
    """The mean of the norms held, ``(…, groups)``; 0 where there are none."""
    values: Tensor = window["values"]
    return values.sum(dim=-1) / count(window).clamp(min=1)


def deviation(window: Window, correction: int = 0) -> Tensor:
    """The standard deviation: of the population, or of a sample with ``correction=1``.

    0 where there are not more norms than `correction`.
    """
    values, filled = window["values"], count(window)
    slots = torch.arange(values.shape[-1], device=values.device)
    deviations = torch.where(slots < filled.unsqueeze(-1), values - mean(window).unsqueeze(-1), 0.0)
    squares: Tensor = deviations.square().sum(dim=-1)
    return (squares / (filled - correction).clamp(min=1)).sqrt()
