"""Which runs' strategies can be asked in one call, and how.

A strategy's maths holds for any leading dimensions, so runs with equal settings are asked together
with norms ``(runs, groups)``. Where numbers differ (thresholds, say), those fields become tensors
``(runs, 1)`` on a copy of the strategy. Not every strategy computes with its fields in a way that
allows it, so it is tried on numbers first, against the same strategies one by one; what fails is
asked once for each distinct value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from gclip.core.schedules import Schedule
from gclip.core.strategy import Strategy
from gclip.errors import UsageError
from gclip.training.fleet.vectorizable import is_vectorizable
from gclip.training.fleet.vectorized_strategy import VectorizedStrategy, differing


def group_vectorizable(
    strategies: Sequence[Strategy], total_steps: int | None
) -> list[tuple[list[int], VectorizedStrategy]]:
    """Runs whose strategies are asked in one call, by their places in `strategies`."""
    kinds: dict[Any, list[int]] = {}
    for place, strategy in enumerate(strategies):
        kinds.setdefault(_kind(strategy), []).append(place)
    made: list[tuple[list[int], VectorizedStrategy]] = []
    for places in kinds.values():
        mine = [strategies[i] for i in places]
        for group in _split(mine):
            few = [mine[i] for i in group]
            if not is_vectorizable((few[0], few[0])):  # not even equal ones side by side
                made += [
                    ([places[i]], VectorizedStrategy([mine[i]], total_steps, alone=True))
                    for i in group
                ]
            else:
                made.append(([places[i] for i in group], VectorizedStrategy(few, total_steps)))
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


def _split(strategies: Sequence[Strategy]) -> list[list[int]]:
    """Places that may be asked together: all, else apart by the fields that do not allow it."""
    everything = list(range(len(strategies)))
    names = differing(strategies)
    if not names or is_vectorizable(tuple(strategies)):
        return [everything]
    apart = [name for name in names if not is_vectorizable(_varied(strategies, name))]
    if apart == list(names) or not apart:
        apart = list(names)
    groups = _by(everything, lambda i: tuple(getattr(strategies[i], name) for name in apart))
    found: list[list[int]] = []
    for group in groups:
        few = [strategies[i] for i in group]
        if differing(few) and not is_vectorizable(tuple(few)):
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
