"""Strategies of several runs as one, whose fields are tensors where the runs differ."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import torch

from gclip.clipping.float64_limits import exceeds_float32, for_dtype
from gclip.core.schedules import at_step
from gclip.core.strategy import Strategy, Transform


class VectorizedStrategy:
    """Strategies of one class, a run each, as one strategy.

    Args:
        unbatched: one run, asked without a leading dimension.
    """

    def __init__(
        self, strategies: Sequence[Strategy], total_steps: int | None, *, unbatched: bool = False
    ) -> None:
        self.strategies, self.unbatched = tuple(strategies), unbatched
        self._total_steps = total_steps
        first = strategies[0]
        self.varies = any(bool(s.varying) for s in strategies)
        self._differing = differing(strategies)
        self._dims = 2 if isinstance(first, Transform) and first.view == "matrix" else 1
        self._beyond = any(map(exceeds_float32, dict.fromkeys(strategies)))
        self._cache: dict[tuple[torch.device, torch.dtype], Strategy] = {}

    def at(self, step: int, device: torch.device, dtype: torch.dtype) -> Strategy:
        """The strategy to ask at `step` about norms of `dtype`: plain numbers where all agree,
        else tensors."""
        if not self._differing:
            first = self.strategies[0]
            now = at_step(first, step, self._total_steps) if self.varies else first
            return for_dtype(now, dtype) if self._beyond else now
        if (device, dtype) not in self._cache or self.varies:
            self._cache[device, dtype] = self._build(step, device, dtype)
        return self._cache[device, dtype]

    def select_runs(self, runs: list[int]) -> VectorizedStrategy:
        """Of these runs only."""
        return VectorizedStrategy(
            [self.strategies[i] for i in runs], self._total_steps, unbatched=self.unbatched
        )

    def _build(self, step: int, device: torch.device, dtype: torch.dtype) -> Strategy:
        # Few settings may be shared by many runs: a schedule is followed once for each.
        at_this_step: dict[Strategy, Strategy] = {}
        for each in self.strategies:
            if each not in at_this_step:
                at_this_step[each] = at_step(each, step, self._total_steps)
        now = [at_this_step[each] for each in self.strategies]
        strategy = for_dtype(now[0], dtype) if self._beyond else copy.copy(now[0])
        for name in self._differing:
            # What is beyond the dtype becomes infinite here.
            column = torch.tensor([getattr(each, name) for each in now], dtype=dtype)
            shape = (len(now), *[1] * self._dims)
            object.__setattr__(strategy, name, column.view(shape).to(device, non_blocking=True))
        return strategy


def differing(strategies: Sequence[Strategy]) -> tuple[str, ...]:
    """The names of the fields that are not the same in all."""
    first = strategies[0]
    if all(each is first for each in strategies):
        return ()
    names = [f.name for f in dataclasses.fields(first)]
    distinct = set(strategies)
    return tuple(n for n in names if len({getattr(each, n) for each in distinct}) > 1)
