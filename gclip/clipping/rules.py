"""The maths of one step, on norms alone: ask the strategy, turn its limit into factors, remember.

Pure functions of tensors ``(…, groups)``: no gradient, no parameter, no state but what is passed.
The clipper, the simulation of a sequence of norms, and many runs stacked along leading
dimensions all use these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gclip.clipping.answers import (
    MISTAKES,
    check_learned,
    check_transformed,
    explain_learned,
    explain_limit,
    explain_transformed,
)
from gclip.clipping.float64_limits import without_nan
from gclip.core.host import on_host
from gclip.core.seen import Band, Elements, Limit, Seen
from gclip.core.strategy import Memory, Strategy, Transform


class Decision(NamedTuple):
    """What one step does to each group. Tensors are ``(…, groups)``, of the norms' dtype.

    Attributes:
        norm: what was measured.
        bounds: what the strategy answered, which a clamp uses as it is.
        limit: the largest norm allowed.
        factor: what each group's gradient is multiplied by; 1 where it stays as it is.
        clipped_norm: the norm afterwards.
        clipped: bool, True where the gradient changes.
        idle: True where the host knows that nothing changes.
        skip: bool ``(…, 1)``, True where the whole step is to be skipped, or None: never.
    """

    norm: Tensor
    bounds: Limit
    limit: Tensor
    factor: Tensor
    clipped_norm: Tensor
    clipped: Tensor
    idle: bool
    skip: Tensor | None


Outcome: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, bool, Tensor | None]


def decide(strategy: Strategy, seen: Seen, memory: Memory) -> Decision:
    """The factors for one step, by the strategy's limit and rule. Memory is only read.

    Raises:
        UsageError: the strategy's `limit` raises, or returns what is no limit.
    """
    try:
        decision = _decided(strategy, seen, memory)
    except MISTAKES as error:
        explain_limit(strategy, seen, memory, error)
        raise
    floor: Tensor | float = strategy.floor  # a tensor where runs side by side have their own
    if decision.idle or (not isinstance(floor, Tensor) and not floor):
        return decision
    return _floored(decision, floor)


def _decided(strategy: Strategy, seen: Seen, memory: Memory) -> Decision:
    if seen.step < strategy.first_limited_step:
        limit: Limit = math.inf
    else:
        limit = strategy.limit(seen, memory)
        if not isinstance(limit, float):
            limit = without_nan(strategy, limit)
    low, high = limit if isinstance(limit, Band) else (None, limit)
    norm = seen.norm
    # What is over the limit in an element's scope is cut, not scaled.
    rule = "clamp" if strategy.rule == "scale" and strategy.clamps else strategy.rule
    outcome = _RULES[rule](norm, _like(high, norm), _like(low, norm))
    return Decision(norm, limit, *outcome)


def clamped(norm: Tensor, limit: float, over: Tensor) -> Decision:
    """The decision of a clamp at a number, of which it is known who is beyond it.

    Args:
        norm: the largest elements, on the host.
        limit: the number.
        over: bool, who is beyond it; see `_clamp`.
    """
    full, idle = _full(limit, norm), _none(over)
    after = norm if idle else torch.minimum(norm, full)
    return Decision(norm, limit, full, _full(1.0, norm), after, over, idle, None)


def leave_nonfinite_groups(decision: Decision, *, clamps: bool) -> Decision:
    """As decided, but groups whose norm is not finite stay as they are.

    Their elements cannot be scaled to a limit: inf · 0 is NaN. A clamp cuts them all the same, by
    bounds that are numbers; and a step that is to be skipped is.
    """
    if clamps:
        clipped = decision.clipped & ~torch.isnan(decision.limit)
        return decision._replace(bounds=bounds_without_nan(decision.bounds), clipped=clipped)
    if decision.skip is not None:
        return decision
    finite = torch.isfinite(decision.norm)
    return decision._replace(
        factor=torch.where(finite, decision.factor, 1.0),
        clipped_norm=torch.where(finite, decision.clipped_norm, decision.norm),
        clipped=decision.clipped & finite,
    )


def bounds_without_nan(bounds: Limit) -> Limit:
    """Bounds without those that came of a norm that is NaN: these cut nothing."""
    if isinstance(bounds, Band):
        return Band(-_cut_at(-bounds.low), _cut_at(bounds.high))
    return _cut_at(bounds)


def _cut_at(bound: Tensor | float) -> Tensor | float:
    return torch.where(torch.isnan(bound), math.inf, bound) if isinstance(bound, Tensor) else bound


def _floored(decision: Decision, floor: Tensor | float) -> Decision:
    """Nothing is multiplied by less than `floor`, whatever the limit says."""
    return decision._replace(
        factor=decision.factor.clamp(min=floor),
        clipped_norm=torch.maximum(decision.clipped_norm, decision.norm * floor),
    )


def remember_step(
    strategy: Strategy, seen: Seen, clipped_norm: Tensor, memory: Memory, valid: Tensor | None
) -> Memory:
    """Memory after the step. Entries of groups that are not `valid` keep their old values.

    A nested dict is the business of the helper that made it, which reads ``seen.valid`` itself.

    Args:
        strategy: whose memory it is.
        seen: what it was shown.
        clipped_norm: norms after the step, ``(…, groups)``.
        memory: before the step; it is not changed.
        valid: bool ``(…, groups)``; None where all are.

    Raises:
        UsageError: the strategy's `learn` raises, or returns what memory cannot take.
    """
    try:
        new = strategy.learn(seen, clipped_norm, memory)
        if not new and new is not None:
            return memory
        if valid is not None:
            new = {key: _keep(valid, value, memory[key]) for key, value in new.items()}
        after = {**memory, **new}
    except MISTAKES as error:
        explain_learned(strategy, seen, clipped_norm, memory, error)
        raise
    if len(after) != len(memory):
        check_learned(strategy, new, memory)
    return after


def transformed(
    strategy: Transform, seen: Elements, memory: Memory, valid: Tensor | None
) -> tuple[Tensor, Memory]:
    """The new values and the memory after the step; entries that are not `valid` stay.

    Args:
        strategy: that is asked.
        seen: its tensor.
        memory: before the step; it is not changed.
        valid: bool; None where the step may be remembered.
    """
    answer: Any = None
    try:
        answer = strategy.transform(seen, memory)
        values, new = answer
        after = {**memory, **new}
        fits = values.shape == seen.values.shape and values.dtype == seen.values.dtype
    except MISTAKES as error:
        explain_transformed(strategy, seen, answer, memory, error)
        raise
    if not fits or len(after) != len(memory):
        check_transformed(strategy, answer, seen.values, memory)
    if seen.step < strategy.first_limited_step:
        values = seen.values
    if valid is not None:
        guarded = {key: _keep(valid, value, memory[key]) for key, value in new.items()}
        return values, {**memory, **guarded}
    return values, after


def _like(limit: Tensor | float | None, norm: Tensor) -> Tensor | float | None:
    if isinstance(limit, Tensor):
        return limit if limit.dtype == norm.dtype else limit.to(norm.dtype)
    return None if limit is None else float(limit)


def _full(limit: Tensor | float, norm: Tensor) -> Tensor:
    if isinstance(limit, Tensor):
        return limit if limit.shape == norm.shape else limit.expand_as(norm)
    if not on_host(norm):
        return torch.full_like(norm, limit)
    return _constant(limit, norm.shape, norm.dtype)


@lru_cache(maxsize=256)
def _constant(limit: float, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Made once: most limits are the same number at every step."""
    return torch.full(shape, limit, dtype=dtype)


def _clamp(norm: Tensor, high: Any, _low: Any) -> Outcome:
    """Elements are cut at the limit. Norms say only what cannot have changed; see the clipper."""
    limit, one = _full(high, norm), _full(1.0, norm)
    over = ~(norm <= limit)  # also where the largest element is NaN: others may be beyond
    if _none(over):
        return limit, one, norm, over, True, None
    return limit, one, torch.minimum(norm, limit), over, False, None


def _scale(norm: Tensor, high: Any, low: Any) -> Outcome:
    """Scale down to the limit what lies above it (and up to the lower one what lies below)."""
    limit, one = _full(high, norm), _full(1.0, norm)
    over = norm > limit
    if low is None:
        if _none(over):
            return limit, one, norm, over, True, None
        if norm.numel() == 1 and on_host(norm):  # it is over, so that the ratio is at most 1
            return limit, limit / norm, torch.minimum(norm, limit), over, False, None
    # fmin passes over the NaN of 0/0: a zero gradient stays as it is. Within the limit the ratio is
    # at least 1, so that the factor is exactly 1. (A fifth of the time of torch.where.)
    factor = torch.fmin(limit / norm, one)
    clipped_norm = torch.minimum(norm, limit)
    if low is not None:
        under = (norm < low) & (norm > 0)
        factor = torch.where(under, _no_more_than_finite(low / norm), factor)
        clipped_norm = torch.where(under, low, clipped_norm)
        over = over | under
    return limit, factor, clipped_norm, over, False, None


def _normalize(norm: Tensor, high: Any, _low: Any) -> Outcome:
    """Give every gradient that is not zero exactly the limit as its norm."""
    limit = _full(high, norm)
    change = (norm > 0) & torch.isfinite(limit)
    factor = torch.where(change, _no_more_than_finite(limit / norm), 1.0)
    clipped_norm = torch.where(change, limit, norm)
    return limit, factor, clipped_norm, change & (factor != 1), False, None


def _soft(norm: Tensor, high: Any, _low: Any) -> Outcome:
    """Shrink smoothly: n becomes n·c/(c+n), which never exceeds c."""
    limit = _full(high, norm)
    change = (norm > 0) & torch.isfinite(limit)
    factor = torch.where(change, limit / (limit + norm), 1.0)
    return limit, factor, norm * factor, change & (factor != 1), False, None


def _skip(norm: Tensor, high: Any, _low: Any) -> Outcome:
    """Skip the whole step when any group is beyond its limit."""
    over = norm > high
    skip = over.any(dim=-1, keepdim=True)
    factor = torch.where(skip, 0.0, torch.ones_like(norm))
    return _full(high, norm), factor, norm * factor, over, False, skip


_RULES: dict[str, Callable[[Tensor, Any, Any], Outcome]] = {
    "scale": _scale,
    "clamp": _clamp,
    "normalize": _normalize,
    "soft": _soft,
    "skip": _skip,
}


def _no_more_than_finite(factor: Tensor) -> Tensor:
    """A factor that overflowed would make NaN of an element of zero."""
    return factor.clamp(max=torch.finfo(factor.dtype).max)


def _none(flags: Tensor) -> bool:
    """Whether the host can tell that all are False."""
    return on_host(flags) and not bool(flags if flags.numel() == 1 else flags.any())


def _keep(valid: Tensor, new: Any, old: Any) -> Any:
    if not isinstance(new, Tensor):
        return new
    return torch.where(valid, new, old)
