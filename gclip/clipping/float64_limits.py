"""Limits that only float64 holds: where norms are float32, they are no limits.

``norm(max_norm=1e300)`` (to measure only, say) is asked with ``max_norm=inf`` by gradients whose
norms are float32, and as it stands by float64 ones.
"""

from __future__ import annotations

import copy
import math
from dataclasses import fields
from typing import TypeVar

import torch
from torch import Tensor

from gclip.core.schedules import Schedule
from gclip.core.seen import Band, Limit
from gclip.core.strategy import Strategy

S = TypeVar("S", bound=Strategy)

_MARK = "_unlimited"


def exceeds_float32(strategy: Strategy) -> bool:
    """Whether any of its numbers, or an end of a schedule, is larger than float32 holds."""
    return any(map(_exceeds, (getattr(strategy, f.name) for f in fields(strategy))))


def for_dtype(strategy: S, dtype: torch.dtype) -> S:
    """The strategy with numbers that `dtype` holds: what is larger is infinite.

    Call it for strategies for which `exceeds_float32` is true, with plain numbers in every field.
    """
    most = torch.finfo(dtype).max
    converted = copy.copy(strategy)  # its values were checked before
    for f in fields(strategy):
        value = getattr(strategy, f.name)
        if isinstance(value, float) and most < abs(value) < math.inf:
            object.__setattr__(converted, f.name, math.copysign(math.inf, value))
    object.__setattr__(converted, _MARK, True)
    return converted


def without_nan(strategy: Strategy, limit: Limit) -> Limit:
    """A limit computed from an infinite number, without the NaN of 0 · inf: that is no limit."""
    if not getattr(strategy, _MARK, False):
        return limit
    if isinstance(limit, Band):
        return Band(_replace_nan(limit.low, -math.inf), _replace_nan(limit.high, math.inf))
    return _replace_nan(limit, math.inf)


def _replace_nan(limit: Tensor | float, none: float) -> Tensor | float:
    if isinstance(limit, Tensor):
        return torch.where(torch.isnan(limit), none, limit)
    return none if math.isnan(limit) else limit


def _exceeds(value: object) -> bool:
    if isinstance(value, Schedule):
        return _exceeds(value.start) or _exceeds(value.end)
    return isinstance(value, float) and abs(value) > torch.finfo(torch.float32).max
