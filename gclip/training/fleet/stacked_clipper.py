"""What a fleet's strategies do to the gradients, or to the updates: ask, clip, in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gclip.clipping.norms import ALL_FINITE, all_finite, clamp_elements, norm_type
from gclip.core.host import on_host
from gclip.core.seen import Band, Limit
from gclip.core.strategy import remembers
from gclip.training.fleet import broadcast
from gclip.training.fleet.broadcast import Tables
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
        self, batches: Sequence[StrategyBatch], layout: StackedParameters, runs: int
    ) -> None:
        self.batches = sorted(batches, key=lambda b: b.place)
        self.layout, self.runs = layout, runs
        self._stages = [
            [b for b in self.batches if b.place == place]
            for place in sorted({b.place for b in batches})
        ]
        self._tables = Tables(layout, runs)
        self.spans = _spans(batches)
        self._remembers = any(remembers(b.merged.strategies[0]) for b in batches)
        self._raises = any(b.rule == "normalize" for b in batches)

    def measure(self, grads: Sequence[Tensor | None], recording: bool) -> Tensor:
        """What each run's first strategies see: is it finite? ``(runs, 1)`` or `ALL_FINITE`."""
        measured = self._now = self._measured(grads)
        firsts = [b for b in self.batches if b.first]
        views: list[StackedGroups] = list(dict.fromkeys(b.view for b in firsts))
        fine = all(all_finite(measured.of(view)) is ALL_FINITE for view in views)
        finite = ALL_FINITE if fine else self._finite(firsts, measured)
        for batch in firsts:
            batch.take(measured, recording)
        return finite

    def memorable(self, finite: Tensor) -> Tensor:
        """Which runs' steps may enter memory: finite, and not all of it zero, ``(runs, 1)``."""
        if not self._remembers:
            return finite
        there = torch.zeros((self.runs, 1), dtype=torch.bool, device=self._now.device)
        for batch in self.batches:
            if batch.first:
                batch.put(there, batch.mine(there) | batch.norm.any(dim=1, keepdim=True))
        if on_host(there) and bool(there.all()):
            return finite
        return there if finite is ALL_FINITE else finite & there

    def clip(self, now: StepInputs, recording: bool) -> Tensor | None:
        """Ask each strategy, clip, let it learn; which runs want no step, ``(runs, 1)``."""
        skip: Tensor | None = None
        for stage in self._stages:
            later = [b for b in stage if not b.first]
            if later:
                fresh = self._measured(now.grads)
                for batch in later:
                    batch.take(fresh, recording)
            else:
                fresh = self._now
            allowed = now if skip is None else now._replace(finite=now.finite & ~skip)
            for batch in stage:
                wish = batch.ask(allowed, self._now if batch.first else fresh)
                if wish is not None:
                    spread = torch.zeros((self.runs, 1), dtype=torch.bool, device=wish.device)
                    batch.put(spread, wish)
                    skip = spread if skip is None else skip | spread
            self._apply(stage, now, recording)
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
                b.made.limit,
                b.made.clipped,
            )
            for b in self.batches
            if b.shown or everything
        ]

    def pick(self, places: Mapping[int, int], runs: int) -> StackedClipper:
        """The same for fewer runs; `places` says where each that stays goes."""
        kept = (b.pick(places, runs) for b in self.batches)
        return StackedClipper([b for b in kept if b is not None], self.layout, runs)

    # -- inside ------------------------------------------------------------------------------

    def _measured(self, grads: Sequence[Tensor | None]) -> StackedNorms:
        device = next(g.device for g in grads if g is not None)
        return StackedNorms(
            grads, self.layout, self.runs, device, spans=self.spans, zeros=self._raises
        )

    def _finite(self, firsts: Sequence[StrategyBatch], measured: StackedNorms) -> Tensor:
        finite = torch.ones((self.runs, 1), dtype=torch.bool, device=measured.device)
        for batch in firsts:
            mine = torch.isfinite(batch.mine(measured.of(batch.view))).all(dim=1, keepdim=True)
            batch.put(finite, batch.mine(finite) & mine)
        return finite

    def _apply(self, stage: Sequence[StrategyBatch], now: StepInputs, recording: bool) -> None:
        scaled = [b for b in stage if not b.clamps and not b.made.idle]
        if scaled:
            table = self._filled(scaled, 1.0, _factors)
            broadcast.multiply(now.grads, table)
        clamped = [b for b in stage if b.clamps and not (b.made.idle and _symmetric(b.made.bounds))]
        if clamped and not self._clamp_alike(clamped, now):
            low = self._filled(clamped, -math.inf, lambda b: bounds(b.made, b.made.norm)[0])
            high = self._filled(clamped, math.inf, lambda b: bounds(b.made, b.made.norm)[1])
            broadcast.clamp(now.grads, low, high)
        for batch in stage:
            batch.write(now)
        if recording and any(b.last and b.shown for b in clamped):
            again = self._measured(now.grads)
            for batch in clamped:
                batch.after = batch.mine(again.tensor_norms(batch.view))
        for batch in stage:
            if batch.clamps and batch not in clamped:
                batch.after = batch.before

    def _clamp_alike(self, clamped: Sequence[StrategyBatch], now: StepInputs) -> bool:
        """One clamp at a constant for everything, which needs no tables; whether it was that."""
        batch = clamped[0]
        if len(clamped) > 1 or not batch.whole or not batch.view.whole:
            return False
        low, high = (
            batch.made.bounds if isinstance(batch.made.bounds, Band) else (None, batch.made.bounds)
        )
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            return False
        there = [g for g in now.grads if g is not None and g.numel()]
        clamp_elements(there, -high if low is None else low, high)
        return True

    def _filled(
        self,
        batches: Sequence[StrategyBatch],
        neutral: float,
        values: Callable[[StrategyBatch], Tensor],
    ) -> broadcast.BroadcastTable:
        device, dtype = batches[0].norm.device, norm_type([b.norm for b in batches])
        fine = any(b.view.fine for b in batches)
        table = self._tables.cleared(neutral, fine=fine, device=device, dtype=dtype)
        for batch in batches:
            spread = batch.view.spread(values(batch), neutral)
            if fine and not batch.view.fine:
                spread = self.layout.by_unit(spread)
            if batch.view.whole:
                batch.put(table.values, spread)
            else:  # the other parameters are some other batch's
                other = batch.mine(table.values)
                batch.put(table.values, torch.where(spread == neutral, other, spread))
        return table


def _spans(batches: Sequence[StrategyBatch]) -> dict[NormKind, slice]:
    """For each kind of norm, from the first to the last run that needs it."""
    needs: dict[NormKind, list[int]] = {}
    for batch in batches:
        kinds = [batch.view.kind]
        if batch.clamps:
            kinds += [("each", 2.0), ("ends", math.inf)]
        elif batch.view.order != 2.0:
            kinds.append(batch.view.l2.kind)
        for kind in kinds:
            needs.setdefault(kind, []).extend(batch.rows)
    return {kind: slice(min(rows), max(rows) + 1) for kind, rows in needs.items()}


def _symmetric(bounds: Limit) -> bool:
    return not isinstance(bounds, Band)


def _factors(batch: StrategyBatch) -> Tensor:
    made = batch.made
    if batch.rule != "skip":
        return made.factor
    # What is within its limit is set to zero with the rest of its run, after all have been asked.
    return torch.where(made.clipped, made.factor, 1.0)
