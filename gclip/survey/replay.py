"""What would a strategy have done to norms that were watched? Its decisions, step by step, again.

The norms are those of a training that was not clipped: clipping changes the steps, and so the
norms that follow, and a replay cannot know how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from gclip.clipping.answers import remembered
from gclip.clipping.float64_limits import exceeds_float32
from gclip.clipping.rules import Decision, decide, remember_step
from gclip.clipping.simulation import resolve_at_step
from gclip.clipping.verdicts import LIMITED
from gclip.core.seen import Band, Rate, Seen
from gclip.core.strategy import Memory, Strategy
from gclip.errors import UsageError
from gclip.survey.norm_log import Magnitudes, Watched


@dataclass(frozen=True)
class Replay:
    """What came of a replay.

    Attributes:
        limit: of each step and group, ``(steps, groups)``.
        limited: bool ``(steps,)``: whether the total norm shrank by more than 1 %.
    """

    limit: Tensor
    limited: Tensor


@torch.no_grad()
def replay(strategy: Strategy, watched: Watched, *, at_once: bool = False) -> Replay:
    """Let the strategy decide about every step, from an empty memory.

    Args:
        at_once: all steps in one call. Only for strategies of which `memoryless` is true.

    Raises:
        UsageError: the strategy reads what was not watched.
    """
    rates = {key: _Rates(watched, key) for key in ("lr", "weight_decay")}
    if at_once:
        strategy = resolve_at_step(strategy, 0, len(watched), watched.norm.dtype)
        seen = Seen(
            watched.norm,
            weight_norm=watched.weight_norm,
            size=watched.sizes,
            lr=rates["lr"].together,
            weight_decay=rates["weight_decay"].together,
            total_steps=len(watched),
        )
        return _outcome(strategy, watched, [decide(strategy, seen, {})])
    memory: Memory | None = None
    decisions: list[Decision] = []
    follows = bool(strategy.varying) or exceeds_float32(strategy)
    weights, valid = watched.weight_norm.unbind(0), watched.valid
    for step, norm in enumerate(watched.norm.unbind(0)):
        now = resolve_at_step(strategy, step, len(watched), norm.dtype) if follows else strategy
        if memory is None:
            memory = remembered(now, torch.zeros_like(norm))
        seen = Seen(
            norm,
            step=step,
            weight_norm=weights[step],
            size=lambda: watched.sizes,
            lr=rates["lr"].at(step),
            weight_decay=rates["weight_decay"].at(step),
            valid=valid[step],
            total_steps=len(watched),
        )
        decisions.append(decide(now, seen, memory))
        memory = remember_step(now, seen, decisions[-1].clipped_norm, memory, valid[step])
    return _outcome(strategy, watched, decisions)


def memoryless(strategy: Strategy, watched: Watched) -> bool:
    """Whether all steps may be decided at once, with the same result as one by one."""
    cls = type(strategy)
    remembers = cls.learn is not Strategy.learn or cls.remember is not Strategy.remember
    if remembers or strategy.varying or strategy.warmup:
        return False
    try:
        one, other = replay(strategy, watched), replay(strategy, watched, at_once=True)
    except UsageError:
        return False
    return torch.equal(one.limit, other.limit) and torch.equal(one.limited, other.limited)


class _Rates:
    """The learning rates, or the weight decays, of the steps; put together when first read."""

    def __init__(self, watched: Watched, key: str) -> None:
        self._watched, self._key = watched, key
        self._known: list[Rate] | None = None

    def at(self, step: int) -> Callable[[], Rate]:
        """The rate at one step, for a strategy to read."""
        return lambda: self._each()[step]

    def together(self) -> Rate:
        """All steps' rates: a number, or ``(steps, 1)`` or ``(steps, groups)``."""
        each = self._each()
        if all(isinstance(rate, float) and rate == each[0] for rate in each):
            return each[0]
        rows = [torch.as_tensor(rate, dtype=torch.float32).cpu().reshape(-1) for rate in each]
        return torch.stack(rows)

    def _each(self) -> list[Rate]:
        if self._known is None:
            rates = self._watched.rates(self._key)
            if rates is None:
                raise UsageError(
                    "it reads the optimizer's learning rate: gclip.Survey(model, optimizer)"
                )
            self._known = rates
        return self._known


def _outcome(strategy: Strategy, watched: Watched, decisions: list[Decision]) -> Replay:
    all_at_once = len(decisions) == 1 and decisions[0].norm.ndim == 2
    joined = torch.cat if all_at_once else torch.stack
    limit = joined([each.limit for each in decisions])
    if strategy.clamps:
        if any(isinstance(each.bounds, Band) for each in decisions):
            raise UsageError("its bounds are not symmetric, and only sizes of elements are watched")
        before, after = _clamped(watched, limit)
        skips = [each.skip for each in decisions if each.skip is not None]
        if skips:
            after = torch.where(joined(skips).squeeze(-1), 0.0, after)
    else:
        before = _total(watched.l2)
        if strategy.order == 2.0:
            after = _total(joined([each.clipped_norm for each in decisions]))
        else:
            after = _total(watched.l2 * joined([each.factor for each in decisions]))
    return Replay(limit, after < LIMITED * before)


def _clamped(watched: Watched, limit: Tensor) -> tuple[Tensor, Tensor]:
    """The total norms of the steps before and after their elements are cut."""
    groups = watched.groups
    if groups.scope == "unit":
        raise UsageError("elements are counted by tensor, but it has a limit for each unit")
    sizes = cast(Magnitudes, watched.magnitudes)
    return sizes.total(), sizes.clamped(groups.by_tensor(limit))


def _total(norm: Tensor) -> Tensor:
    total: Tensor = torch.linalg.vector_norm(norm.double(), dim=-1)
    return total
