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


def beyond(strategy: Strategy) -> bool:
    """Whether any of its numbers, or an end of a schedule, is larger than float32 holds."""
    return any(map(_far, (getattr(strategy, f.name) for f in fields(strategy))))


def fitted(strategy: S, dtype: torch.dtype) -> S:
    """The strategy with numbers that `dtype` holds: what is larger is infinite.

    Call it for strategies that are `beyond` float32, with plain numbers in every field.
    """
    most = torch.finfo(dtype).max
    made = copy.copy(strategy)  # its values were checked before
    for f in fields(strategy):
        value = getattr(strategy, f.name)
        if isinstance(value, float) and most < abs(value) < math.inf:
            object.__setattr__(made, f.name, math.copysign(math.inf, value))
    object.__setattr__(made, _MARK, True)
    return made


def limited(strategy: Strategy, limit: Limit) -> Limit:
    """A limit computed from an infinite number, without the NaN of 0 · inf: that is no limit."""
    if not getattr(strategy, _MARK, False):
        return limit
    if isinstance(limit, Band):
        return Band(_numbers(limit.low, -math.inf), _numbers(limit.high, math.inf))
    return _numbers(limit, math.inf)


def _numbers(limit: Tensor | float, none: float) -> Tensor | float:
    if isinstance(limit, Tensor):
        return torch.where(torch.isnan(limit), none, limit)
    return none if math.isnan(limit) else limit


def _far(value: object) -> bool:
    if isinstance(value, Schedule):
        return _far(value.start) or _far(value.end)
    return isinstance(value, float) and abs(value) > torch.finfo(torch.float32).max
