"""Which runs' strategies can be asked in one call, and how.

A strategy's maths holds for any leading dimensions, so runs with equal settings are asked together
with norms ``(runs, groups)``. Where numbers differ (thresholds, say), those fields become tensors
``(runs, 1)`` on a copy of the strategy. Not every strategy computes with its fields in a way that
allows it, so it is tried on numbers first, against the same strategies one by one; what fails is
asked once for each distinct value.
"""

from __future__ import annotations

import contextlib
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
    """Runs whose strategies are asked in one call, by their indices in `strategies`."""
    indices_by_kind: dict[Any, list[int]] = {}
    for index, strategy in enumerate(strategies):
        indices_by_kind.setdefault(_kind(strategy), []).append(index)
    found: list[tuple[list[int], VectorizedStrategy]] = []
    for indices in indices_by_kind.values():
        for group in _split([strategies[i] for i in indices]):
            members = [indices[i] for i in group]
            each = [strategies[i] for i in members]
            if is_vectorizable((each[0], each[0])):
                found.append((members, VectorizedStrategy(each, total_steps)))
            else:  # not even equal ones side by side
                found += [
                    ([i], VectorizedStrategy([strategies[i]], total_steps, unbatched=True))
                    for i in members
                ]
    return found


def _kind(strategy: Strategy) -> Any:
    """What runs must share to be asked together at all: everything but numbers."""
    rest = [
        (f.name, _AnyNumber if _may_differ(value) else value)
        for f in dataclasses.fields(strategy)
        for value in [getattr(strategy, f.name)]
    ]
    return type(strategy), tuple(rest), strategy.varying, strategy.order


class _AnyNumber:
    """In place of a number that may differ."""


def _may_differ(value: Any) -> bool:
    return isinstance(value, float | Schedule)


def _split(strategies: Sequence[Strategy]) -> list[list[int]]:
    """Indices that may be asked together: all, else split by the fields that do not allow it."""
    everything = list(range(len(strategies)))
    names = differing(strategies)
    if not names or is_vectorizable(tuple(strategies)):
        return [everything]
    # Where each may differ by itself, but not all together, runs are split by all of them.
    separate = [n for n in names if not is_vectorizable(_varied(strategies, n))] or names
    groups = _group_by(
        everything, lambda i: tuple(getattr(strategies[i], name) for name in separate)
    )
    found: list[list[int]] = []
    for group in groups:
        members = [strategies[i] for i in group]
        if differing(members) and not is_vectorizable(tuple(members)):
            found += _group_by(group, lambda i: strategies[i])
        else:
            found.append(group)
    return found


def _group_by(indices: list[int], key: Callable[[int], Any]) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for index in indices:
        groups.setdefault(key(index), []).append(index)
    return list(groups.values())


def _varied(strategies: Sequence[Strategy], name: str) -> tuple[Strategy, ...]:
    """The first of `strategies`, with the values of all in one field."""
    variants = []
    for value in dict.fromkeys(getattr(each, name) for each in strategies):
        with contextlib.suppress(UsageError):
            variants.append(dataclasses.replace(strategies[0], **{name: value}))
    return tuple(variants)
