"""Every run's strategies, arranged into batches that are asked together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gclip.clipping.assignment import Place
from gclip.clipping.parameters import Spec, assign, resolve
from gclip.core.strategy import Strategy, Transform
from gclip.errors import UsageError
from gclip.training.fleet.grouping import group_vectorizable
from gclip.training.fleet.stacked_groups import StackedParameters
from gclip.training.fleet.strategy_batch import StrategyBatch, clamps
from gclip.training.fleet.transform_batch import make_batch


class AssignedStrategy(NamedTuple):
    """One strategy of one run, on some of its parameters."""

    strategy: Strategy
    where: Place
    places: tuple[int, ...]
    first: bool
    last: bool
    shown: bool


class RunStrategies(NamedTuple):
    """A run's strategies in the order in which they act, on gradients and on updates."""

    gradient: list[AssignedStrategy]
    update: list[AssignedStrategy]


def assign_run(names: Sequence[str], spec: Spec) -> RunStrategies:
    """What one run's clipper would do.

    Raises:
        UsageError: a strategy that clips single examples.
    """
    gradient: list[AssignedStrategy] = []
    update: list[AssignedStrategy] = []
    for pattern, (strategies, places) in enumerate(assign(names, spec, ())):
        if not places:
            continue
        for strategy in strategies:
            if strategy.side == "sample":
                raise UsageError(
                    f"{strategy} clips single examples (side 'sample'), which many runs cannot do "
                    "side by side: train such runs one after another"
                )
        updates = [s for s in strategies if s.side == "update"]
        # Gradients are always checked, also where only updates are clipped.
        gradients = [s for s in strategies if s.side == "gradient"] or [*resolve("none")]
        for side, mine, home in (("gradient", gradients, gradient), ("update", updates, update)):
            for depth, each in enumerate(mine):
                ends = (depth == 0, depth == len(mine) - 1)
                where = (pattern, side, depth)
                home.append(AssignedStrategy(each, where, tuple(places), *ends, shown=True))
    if update:  # what acts last is what reports and records are about
        gradient = [task._replace(shown=False) for task in gradient]
    return RunStrategies(gradient, update)


def make_batches(
    runs: Sequence[Sequence[AssignedStrategy]], layout: StackedParameters, total_steps: int | None
) -> list[StrategyBatch]:
    """Batches of runs that have, at the same place in their order, strategies of one kind."""
    kinds: dict[tuple[object, ...], list[int]] = {}
    for run, tasks in enumerate(runs):
        for place, task in enumerate(tasks):
            kinds.setdefault((place, *task[1:]), []).append(run)
    batches: list[StrategyBatch] = []
    for key, rows in kinds.items():
        place = int(str(key[0]))
        tasks = [runs[row][place] for row in rows]
        for members, merged in group_vectorizable([task.strategy for task in tasks], total_steps):
            first = merged.strategies[0]
            cut, transform = clamps(first), isinstance(first, Transform)
            order = math.inf if cut else 2.0 if transform else first.order
            view = layout.view(tasks[0].places, "tensor" if transform else first.scope, order)
            batches.append(
                make_batch(
                    merged,
                    view,
                    [rows[i] for i in members],
                    place=place,
                    where=tasks[0].where,
                    first=tasks[0].first,
                    last=tasks[0].last,
                    shown=tasks[0].shown,
                    runs=len(runs),
                )
            )
    return batches
