"""Which runs' strategies can be asked in one call, and how.

A strategy's maths holds for any leading dimensions, so runs with equal settings are asked together
with norms ``(runs, groups)``. Where numbers differ (thresholds, say), those fields become tensors
``(runs, 1)`` on a copy of the strategy. Not every strategy computes with its fields in a way that
allows it, so it is tried on numbers first, against the same strategies one by one; what fails is
asked once for each distinct value.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gclip.decide import decide, remember_step, transformed
from gclip.errors import UsageError
from gclip.schedules import Schedule, at_step
from gclip.strategy import Elements, Memory, Seen, Strategy, Transform

STEPS = 16  # of a trial
RUNS = 8  # at most this many different settings are tried
_SAME, _NEAR = 5e-7, 1e-5


class Merged:
    """Strategies of one class, a run each, as one strategy.

    Args:
        alone: one run, asked without a leading dimension.
    """

    def __init__(
        self, strategies: Sequence[Strategy], total_steps: int | None, *, alone: bool = False
    ) -> None:
        self.strategies, self.alone = tuple(strategies), alone
        self._total_steps = total_steps
        first = strategies[0]
        self.varies = any(bool(s.varying) for s in strategies)
        self._differing = _differing(strategies)
        self._dims = 2 if isinstance(first, Transform) and first.view == "matrix" else 1
        self._kept: tuple[torch.device, Strategy] | None = None

    def at(self, step: int, device: torch.device) -> Strategy:
        """The strategy to ask at `step`: plain numbers where all agree, else tensors."""
        if not self._differing:
            first = self.strategies[0]
            return at_step(first, step, self._total_steps) if self.varies else first
        if self._kept is None or self._kept[0] != device or self.varies:
            self._kept = (device, self._made(step, device))
        return self._kept[1]

    def pick(self, runs: list[int]) -> Merged:
        """Of these runs only."""
        return Merged([self.strategies[i] for i in runs], self._total_steps, alone=self.alone)

    def _made(self, step: int, device: torch.device) -> Strategy:
        # Few settings may be shared by many runs: a schedule is followed once for each.
        known: dict[Strategy, Strategy] = {}
        for each in self.strategies:
            if each not in known:
                known[each] = at_step(each, step, self._total_steps)
        now = [known[each] for each in self.strategies]
        made = copy.copy(now[0])
        for name in self._differing:
            column = torch.tensor([getattr(each, name) for each in now], dtype=torch.float32)
            shape = (len(now), *[1] * self._dims)
            object.__setattr__(made, name, column.view(shape).to(device, non_blocking=True))
        return made


def together(
    strategies: Sequence[Strategy], total_steps: int | None
) -> list[tuple[list[int], Merged]]:
    """Runs whose strategies are asked in one call, by their places in `strategies`."""
    kinds: dict[Any, list[int]] = {}
    for place, strategy in enumerate(strategies):
        kinds.setdefault(_kind(strategy), []).append(place)
    made: list[tuple[list[int], Merged]] = []
    for places in kinds.values():
        mine = [strategies[i] for i in places]
        for group in _split(mine):
            few = [mine[i] for i in group]
            if len(set(few)) == 1 and not works((few[0], few[0])):
                made += [([places[i]], Merged([mine[i]], total_steps, alone=True)) for i in group]
            else:
                made.append(([places[i] for i in group], Merged(few, total_steps)))
    return made


def _kind(strategy: Strategy) -> Any:
    """What runs must share to be asked together at all: everything but numbers."""
    rest = [
        (f.name, _Frozen if _number(value) else value)
        for f in dataclasses.fields(strategy)
        for value in [getattr(strategy, f.name)]
    ]
    return type(strategy), tuple(rest), strategy.varying, strategy.order


class _Frozen:
    """In place of a number that may differ."""


def _number(value: Any) -> bool:
    return isinstance(value, float | Schedule)


def _differing(strategies: Sequence[Strategy]) -> tuple[str, ...]:
    first = strategies[0]
    if all(each is first for each in strategies):
        return ()
    names = [f.name for f in dataclasses.fields(first)]
    distinct = set(strategies)
    return tuple(n for n in names if len({getattr(each, n) for each in distinct}) > 1)


def _split(strategies: Sequence[Strategy]) -> list[list[int]]:
    """Places that may be asked together: all, else apart by the fields that do not allow it."""
    everything = list(range(len(strategies)))
    names = _differing(strategies)
    if not names or works(tuple(strategies)):
        return [everything]
    apart = [name for name in names if not works(_varied(strategies, name))]
    if apart == list(names) or not apart:
        apart = list(names)
    groups = _by(everything, lambda i: tuple(getattr(strategies[i], name) for name in apart))
    found: list[list[int]] = []
    for group in groups:
        few = [strategies[i] for i in group]
        if _differing(few) and not works(tuple(few)):
            found += _by(group, lambda i: strategies[i])
        else:
            found.append(group)
    return found


def _by(places: list[int], key: Callable[[int], Any]) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for place in places:
        groups.setdefault(key(place), []).append(place)
    return list(groups.values())


def _varied(strategies: Sequence[Strategy], name: str) -> tuple[Strategy, ...]:
    """The first of `strategies`, with the values of all in one field."""
    values = dict.fromkeys(getattr(each, name) for each in strategies)
    made = []
    for value in values:
        try:
            made.append(dataclasses.replace(strategies[0], **{name: value}))
        except UsageError:
            continue
    return tuple(made)


def works(strategies: tuple[Strategy, ...]) -> bool:
    """Whether these, one a run, decide together what each decides alone."""
    distinct = tuple(dict.fromkeys(strategies))
    if len(distinct) == 1:
        return _tried((distinct[0], distinct[0]))
    step = max(1, len(distinct) // RUNS)
    return _tried(distinct[::step][:RUNS])


@lru_cache(maxsize=1024)
def _tried(strategies: tuple[Strategy, ...]) -> bool:
    strategies = tuple(map(_hasty, strategies))
    given = _numbers(strategies[0], len(strategies))
    equal = len(set(strategies)) == 1
    try:
        found = _outcomes(Merged(strategies, STEPS), given)
        for run, each in enumerate(strategies):
            # Equal settings are compared with one run alone; different ones with as many runs that
            # are equal, so that nothing but the fields being tensors can make a difference.
            if equal:
                wanted = _outcomes(Merged([each], STEPS, alone=True), given[:, run : run + 1])
            else:
                wanted = _outcomes(Merged([each] * len(strategies), STEPS), given)
            at, near = (0, _NEAR) if equal else (run, _SAME)
            if not all(_close(a[run], b[at], near) for a, b in zip(found, wanted, strict=True)):
                return False
    except Exception:  # whatever a strategy does with a tensor that it takes for a number
        return False
    return True


def _hasty(strategy: Strategy) -> Strategy:
    """With a short warm-up, so that a trial sees what comes after it."""
    try:
        return dataclasses.replace(strategy, warmup=min(strategy.warmup, 3))
    except UsageError:
        return strategy


def _numbers(strategy: Strategy, runs: int) -> Tensor:
    """What each step sees, ``(steps, runs, …)``: all sizes, a zero, and NaN for one run once."""
    shape: tuple[int, ...] = (3,)
    if isinstance(strategy, Transform):
        shape = (2, 3) if strategy.view == "matrix" else (6,)
    chance = torch.Generator().manual_seed(0)
    size = torch.randn((runs, *[1] * len(shape)), generator=chance)
    given = (2 * size + torch.randn((STEPS, runs, *shape), generator=chance)).exp()
    if isinstance(strategy, Transform):
        given *= torch.where(torch.rand(given.shape, generator=chance) < 0.5, 1.0, -1.0)
    given[5].flatten()[0] = 0.0
    given[7].flatten()[-1] = torch.nan
    return given


def _outcomes(merged: Merged, given: Tensor) -> list[Tensor]:
    """What a strategy decides in each step, and what it remembers at the end: ``(runs, …)``."""
    if merged.alone:
        given = given[:, 0]
    memory: Memory | None = None
    found: list[Tensor] = []
    for step, values in enumerate(given):
        now = merged.at(step, values.device)
        memory = now.remember(torch.zeros_like(values)) if memory is None else memory
        finite = torch.isfinite(values)
        while finite.ndim > (0 if merged.alone else 1):
            finite = finite.all(dim=-1)
        valid = None if bool(finite.all()) else finite.view(-1, *[1] * (given.ndim - 2))
        if valid is not None and merged.alone:
            valid = finite.expand_as(values)
        ones = torch.ones_like(values)
        if isinstance(now, Transform):
            elements = Elements(values, step=step, weight=ones, grad=values, lr=0.1)
            left, memory = transformed(now, elements, memory, valid)
            found.append(left)
            continue
        valid = None if valid is None else valid.expand_as(values)
        seen = Seen(
            values, step=step, weight_norm=ones, size=10 * ones, lr=0.1, weight_decay=0.01,
            valid=valid, total_steps=STEPS,
        )  # fmt: skip
        made = decide(now, seen, memory)
        memory = remember_step(now, seen, made.clipped_norm, memory, valid)
        found += [made.limit, made.factor, made.clipped_norm, made.clipped]
    return [t.unsqueeze(0) for t in found] if merged.alone else found


def _close(a: Tensor, b: Tensor, near: float) -> bool:
    if a.dtype == torch.bool:
        return torch.equal(a, b)
    return torch.allclose(a, b, rtol=near, atol=0.0, equal_nan=True)
