"""What a fleet's strategies do to the gradients, or to the updates: ask, clip, in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gclip.clipping.nonfinite import NonfiniteGradients
from gclip.clipping.norms import ALL_FINITE, all_finite, clamp_elements, norm_type
from gclip.core.host import on_host
from gclip.core.seen import Band, Limit
from gclip.core.strategy import remembers
from gclip.training.fleet import broadcast
from gclip.training.fleet.broadcast import BroadcastTable
from gclip.training.fleet.recorder import RecordEntry
from gclip.training.fleet.stacked_groups import NormKind, StackedGroups, StackedParameters
from gclip.training.fleet.stacked_norms import StackedNorms
from gclip.training.fleet.strategy_batch import StepInputs, StrategyBatch, bounds


class StackedClipper:
    """The batches of strategies that work on the stacks' gradients (or on their updates).

    Args:
        runs: how many runs the stacks that they work on have.
    """

    def __init__(
        self, batches: Sequence[StrategyBatch], parameters: StackedParameters, runs: int
    ) -> None:
        self.batches = sorted(batches, key=lambda b: b.stage)
        self.parameters, self.runs = parameters, runs
        self._stages = [
            [b for b in self.batches if b.stage == stage]
            for stage in sorted({b.stage for b in batches})
        ]
        self._tables: dict[tuple[object, ...], BroadcastTable] = {}  # made when first needed
        self.spans = _spans(batches)
        self._has_memory = any(remembers(b.strategy.strategies[0]) for b in batches)
        self._normalizes = any(b.rule == "normalize" for b in batches)

    def measure(self, grads: Sequence[Tensor | None], recording: bool) -> Tensor:
        """What each run's first strategies see: is it finite? ``(runs, 1)`` or `ALL_FINITE`."""
        norms = self._norms = self._measure(grads)
        firsts = [b for b in self.batches if b.first]
        groups: list[StackedGroups] = list(dict.fromkeys(b.groups for b in firsts))
        all_of_them = all(all_finite(norms.of(each)) is ALL_FINITE for each in groups)
        finite = ALL_FINITE if all_of_them else self._finite(firsts, norms)
        for batch in firsts:
            batch.read_norms(norms, recording)
        return finite

    def nonfinite(self, finite: Tensor) -> NonfiniteGradients | None:
        """Whose gradients of those just measured are not finite; None where all are `finite`."""
        return None if finite is ALL_FINITE else NonfiniteGradients(self._norms.measured())

    def memorable(self, finite: Tensor) -> Tensor:
        """Which runs' steps may enter memory: finite, and not all of it zero, ``(runs, 1)``."""
        if not self._has_memory:
            return finite
        nonzero = torch.zeros((self.runs, 1), dtype=torch.bool, device=self._norms.device)
        for batch in self.batches:
            if batch.first:
                batch.scatter(nonzero, batch.select(nonzero) | batch.norm.any(dim=1, keepdim=True))
        if on_host(nonzero) and bool(nonzero.all()):
            return finite
        return nonzero if finite is ALL_FINITE else finite & nonzero

    def clip(self, inputs: StepInputs, recording: bool) -> Tensor | None:
        """Ask each strategy, clip, let it learn; which runs want no step, ``(runs, 1)``."""
        skip: Tensor | None = None
        for stage in self._stages:
            later = [b for b in stage if not b.first]
            norms = self._measure(inputs.grads) if later else self._norms
            for batch in later:
                batch.read_norms(norms, recording)
            valid = inputs if skip is None else inputs._replace(finite=inputs.finite & ~skip)
            for batch in stage:
                batch_skip = batch.decide(valid)
                batch.count_clamped(self._norms if batch.first else norms)
                if batch_skip is not None:
                    run_skip = torch.zeros(
                        (self.runs, 1), dtype=torch.bool, device=batch_skip.device
                    )
                    batch.scatter(run_skip, batch_skip)
                    skip = run_skip if skip is None else skip | run_skip
            self._apply(stage, inputs, recording)
        return skip

    def entries(self, offset: int = 0, *, everything: bool = False) -> list[RecordEntry]:
        """What the last step did, for the record: of the strategies that are shown, or of all.

        `offset` is where this side's first run stands among all.
        """
        return [
            RecordEntry(
                b.index(b.norm.device, offset),
                b.before if b.first else None,
                b.after if b.last else None,
                b.decision.limit,
                b.decision.clipped,
            )
            for b in self.batches
            if b.reported or everything
        ]

    def select_runs(self, new_index: Mapping[int, int], runs: int) -> StackedClipper:
        """The same for fewer runs; `new_index` says where each that stays goes."""
        batches = (b.select_runs(new_index, runs) for b in self.batches)
        return StackedClipper([b for b in batches if b is not None], self.parameters, runs)

    # -- inside ------------------------------------------------------------------------------

    def _measure(self, grads: Sequence[Tensor | None]) -> StackedNorms:
        device = next(g.device for g in grads if g is not None)
        return StackedNorms(
            grads, self.parameters, self.runs, device, spans=self.spans, zeros=self._normalizes
        )

    def _finite(self, firsts: Sequence[StrategyBatch], norms: StackedNorms) -> Tensor:
        finite = torch.ones((self.runs, 1), dtype=torch.bool, device=norms.device)
        for batch in firsts:
            rows = torch.isfinite(batch.select(norms.of(batch.groups))).all(dim=1, keepdim=True)
            batch.scatter(finite, batch.select(finite) & rows)
        return finite

    def _apply(self, stage: Sequence[StrategyBatch], inputs: StepInputs, recording: bool) -> None:
        scaled = [b for b in stage if not b.clamps and not b.decision.idle]
        if scaled:
            table = self._broadcast_table(scaled, 1.0, _factors)
            broadcast.multiply(inputs.grads, table)
        clamped = [
            b for b in stage if b.clamps and not (b.decision.idle and _symmetric(b.decision.bounds))
        ]
        if clamped and not self._clamp_at_constant(clamped, inputs):
            low = self._broadcast_table(
                clamped, -math.inf, lambda b: bounds(b.decision, b.decision.norm)[0]
            )
            high = self._broadcast_table(
                clamped, math.inf, lambda b: bounds(b.decision, b.decision.norm)[1]
            )
            broadcast.clamp(inputs.grads, low, high)
        for batch in stage:
            batch.write_elements(inputs)
        if recording and any(b.last and b.reported for b in clamped):
            norms = self._measure(inputs.grads)
            for batch in clamped:
                batch.after = batch.select(norms.tensor_norms(batch.groups))
        for batch in stage:
            if batch.clamps and batch not in clamped:
                batch.after = batch.before

    def _clamp_at_constant(self, clamped: Sequence[StrategyBatch], inputs: StepInputs) -> bool:
        """One clamp at a constant for everything, which needs no tables; whether it was that."""
        batch = clamped[0]
        if len(clamped) > 1 or not batch.all_runs or not batch.groups.all_parameters:
            return False
        low, high = (
            batch.decision.bounds
            if isinstance(batch.decision.bounds, Band)
            else (None, batch.decision.bounds)
        )
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            return False
        given = [g for g in inputs.grads if g is not None and g.numel()]
        clamp_elements(given, -high if low is None else low, high)
        return True

    def _broadcast_table(
        self,
        batches: Sequence[StrategyBatch],
        neutral: float,
        values: Callable[[StrategyBatch], Tensor],
    ) -> BroadcastTable:
        device, dtype = batches[0].norm.device, norm_type([b.norm for b in batches])
        by_unit = any(b.groups.by_unit for b in batches)
        key = (neutral, by_unit, device, dtype)
        if key not in self._tables:
            self._tables[key] = BroadcastTable(
                self.parameters, self.runs, device, dtype, neutral, by_unit=by_unit
            )
        table = self._tables[key]
        table.clear()
        for batch in batches:
            columns = batch.groups.expand(values(batch), neutral)
            if by_unit and not batch.groups.by_unit:
                columns = self.parameters.repeat_by_unit(columns)
            if not batch.groups.all_parameters:  # the others are some other batch's
                before = batch.select(table.values)
                columns = torch.where(columns == neutral, before, columns)
            batch.scatter(table.values, columns)
        return table


def _spans(batches: Sequence[StrategyBatch]) -> dict[NormKind, slice]:
    """For each kind of norm, from the first to the last run that needs it."""
    needs: dict[NormKind, list[int]] = {}
    for batch in batches:
        kinds = [batch.groups.norm_kind]
        if batch.clamps:
            kinds += [("tensor", 2.0), ("extremes", math.inf)]
        elif batch.groups.order != 2.0:
            kinds.append(batch.groups.l2.norm_kind)
        for kind in kinds:
            needs.setdefault(kind, []).extend(batch.rows)
    return {kind: slice(min(rows), max(rows) + 1) for kind, rows in needs.items()}


def _symmetric(bounds: Limit) -> bool:
    return not isinstance(bounds, Band)


def _factors(batch: StrategyBatch) -> Tensor:
    decision = batch.decision
    if batch.rule != "skip":
        return decision.factor
    # What is within its limit is set to zero with the rest of its run, after all have been asked.
    return torch.where(decision.clipped, decision.factor, 1.0)
