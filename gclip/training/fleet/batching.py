"""Every run's strategies, arranged into batches that are asked together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gclip.clipping.assignment import ChainPosition
from gclip.clipping.parameters import Spec, assign, resolve
from gclip.core.strategy import Strategy, Transform, measured_order
from gclip.errors import UsageError
from gclip.training.fleet.grouping import group_vectorizable
from gclip.training.fleet.stacked_groups import StackedParameters
from gclip.training.fleet.strategy_batch import StrategyBatch
from gclip.training.fleet.transform_batch import make_batch


class AssignedStrategy(NamedTuple):
    """One strategy of one run, on some of its parameters."""

    strategy: Strategy
    state_key: ChainPosition
    indices: tuple[int, ...]
    first: bool
    last: bool
    reported: bool


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
    for pattern, (strategies, indices) in enumerate(assign(names, spec, ())):
        if not indices:
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
        for side, chain, target in (
            ("gradient", gradients, gradient),
            ("update", updates, update),
        ):
            for depth, each in enumerate(chain):
                ends = (depth == 0, depth == len(chain) - 1)
                key = (pattern, side, depth)
                target.append(AssignedStrategy(each, key, tuple(indices), *ends, reported=True))
    if update:  # what acts last is what reports and records are about
        gradient = [each._replace(reported=False) for each in gradient]
    return RunStrategies(gradient, update)


def make_batches(
    runs: Sequence[Sequence[AssignedStrategy]],
    parameters: StackedParameters,
    total_steps: int | None,
) -> list[StrategyBatch]:
    """Batches of runs that have, at the same position in their order, strategies of one kind."""
    rows_by_kind: dict[tuple[int, tuple[object, ...]], list[int]] = {}
    for run, assigned in enumerate(runs):
        for stage, each in enumerate(assigned):
            rows_by_kind.setdefault((stage, each[1:]), []).append(run)
    batches: list[StrategyBatch] = []
    for (stage, _), rows in rows_by_kind.items():
        strategies = [runs[row][stage].strategy for row in rows]
        shared = runs[rows[0]][stage]
        for members, vectorized in group_vectorizable(strategies, total_steps):
            first = vectorized.strategies[0]
            transforms = isinstance(first, Transform)
            order = 2.0 if transforms else measured_order(first)
            scope = "tensor" if transforms else first.scope
            batches.append(
                make_batch(
                    vectorized,
                    parameters.groups(shared.indices, scope, order),
                    [rows[i] for i in members],
                    stage=stage,
                    state_key=shared.state_key,
                    first=shared.first,
                    last=shared.last,
                    reported=shared.reported,
                    runs=len(runs),
                )
            )
    return batches
