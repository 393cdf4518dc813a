"""A strategy that cuts elements at its limit: what is measured is the largest element."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gclip.clipping.answers import MISTAKES
from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.clamp_pass import ClampPass, is_plain
from gclip.clipping.gradients import AliasedGradients, gradients
from gclip.clipping.group_norms import refuse_complex
from gclip.clipping.norms import clamp_elements, clamp_modulus
from gclip.clipping.rules import Decision, bounds_without_nan, clamped
from gclip.clipping.sparse import coalesce
from gclip.core.seen import Band, Limit
from gclip.core.strategy import Strategy

_MOST = torch.finfo(torch.float32).max


class BoundClamp(BoundStrategy):
    """As `BoundStrategy`, for strategies that clamp (`gclip.Strategy.clamps`)."""

    _pass: ClampPass | None = None  # made when it is first needed

    @property
    def constant_clamp(self) -> bool:
        """Whether gradients can be clamped without having been measured."""
        return type(self.strategy).learn is Strategy.learn

    @property
    def writes(self) -> bool:
        """Whether `clip` may write to gradients."""
        return not self.decision.idle or isinstance(self.decision.bounds, Band)

    def ask(self, step: int, finite: Tensor) -> Tensor | None:
        """Let the strategy decide and learn; whether it wants the step skipped, ``(1,)``."""
        skip = super().ask(step, finite)
        if isinstance(self.decision.bounds, Band):
            self.decision = self._decided_by_band(self.decision, self.decision.bounds)
        return skip

    def enter_graph(self) -> None:
        """Before `clip` as part of a compiled graph: what it reads are tensors, no numbers."""
        zero, bounds = torch.zeros_like(self._norm[:1]), self.decision.bounds
        if isinstance(bounds, Band):
            tensors: Limit = Band(zero + bounds.low, zero + bounds.high)
        else:
            tensors = zero + bounds
        self.decision = self.decision._replace(bounds=tensors)

    def clip(self) -> None:
        """Cut the elements as decided; on a CPU, write nothing where nothing changes."""
        changed = self.groups.changed(self.decision.clipped)
        self._clamp(self.decision.bounds, changed)
        self._give_back()
        if self._recording and self.last:
            self.total_after = self._l2_after(changed)

    def clamp_unmeasured(self, step: int) -> bool:
        """Clamp without measuring; only where `constant_clamp`. Whether there were gradients."""
        grads = gradients(self.params)
        present = [g for g in grads if g is not None]
        sparse = [g for g in present if g.is_sparse]
        if sparse:
            coalesce(self.params)
            grads = gradients(self.params)
        strategy = self.at_step(step)
        limit: Limit = math.inf
        if step >= strategy.first_limited_step:
            limit = strategy.limit(self._seen(step, None, self._measure_after_all), {})
        if isinstance(limit, float) and not sparse:
            clamp_elements(present, -limit, limit)
            return bool(present)
        self._take_any(grads)
        self._clamp(bounds_without_nan(limit), [True] * len(self.params))
        self._give_back()
        return any(g is not None for g in self._grads)

    def fixed_limit(self, step: int, grads: list[Tensor]) -> float | None:
        """The limit of this step where `clamp_at_once` can do it; None where it cannot.

        Args:
            step: how many steps came before this one.
            grads: of `params`, none of them missing, sparse or spread over processes.
        """
        strategy = self.strategy
        if self._unchecked or self._exceeds or step < strategy.first_limited_step:
            return None
        if not (self._dtype is torch.float32 and self.groups.all_filled and is_plain(grads)):
            return None
        self._grads, self._lent, self._complete = [*grads], [], True
        self._measured_after_all = False
        if self._varies:
            strategy = self.at_step(step)
        try:
            limit = strategy.limit(self._seen(step, None, self._measure_after_all), {})
        except MISTAKES:  # asked once more, it is explained
            return None
        if not isinstance(limit, float) or self._measured_after_all:
            return None
        return limit if 0 <= limit <= _MOST else None

    def clamp_at_once(self, grads: list[Tensor], limit: float) -> None:
        """Measure, decide and clip in one pass, where `fixed_limit` gave the limit."""
        if self._pass is None:
            self._pass = ClampPass([grad.shape for grad in grads])
        found = self._pass.clamp(grads, limit)
        self._norm = found.largest
        self.total_before, self.total_after = found.before, found.after
        self.decision = clamped(found.largest, limit, found.over)

    def nonfinite_names(self) -> list[str]:
        """Of the parameters whose largest element is not finite."""
        finite = np.isfinite(self._norm.numpy())
        return [name for name, own in zip(self.groups.names, finite, strict=True) if not own]

    # -- inside ------------------------------------------------------------------------------

    def _measure_after_all(self) -> Tensor:
        """The norms, for a strategy that reads them though its clamp was to go unmeasured."""
        self._measured_after_all = True
        self._take_any(gradients(self.params))
        self.measure()
        self.recheck()
        return self._norm

    def _l2(self, grads: Sequence[Tensor | None]) -> Tensor:
        """The L2 norms that the record adds up, of the tensors."""
        return self.groups.tensor_norms(grads, self._norm.device)

    def _clamp(self, limit: Limit, changed: Sequence[bool]) -> None:
        low, high = limit if isinstance(limit, Band) else (None, limit)
        if low is not None:
            refuse_complex(self._grads)
        if not isinstance(low, Tensor) and not isinstance(high, Tensor):
            clamped = [
                g
                for g, change in zip(self._grads, changed, strict=True)
                if g is not None and change
            ]
            clamp_elements(clamped, -high if low is None else low, high)
            return
        highs = self._split(high)
        lows = [-each for each in highs] if low is None else self._split(low)
        grads = self.groups.views(self._grads)
        for grad, least, most, change in zip(grads, lows, highs, changed, strict=True):
            if grad is None or not change:
                continue
            if grad.is_complex():
                clamp_modulus(grad, most)
            else:
                grad.clamp_(least.to(grad), most.to(grad))

    def _split(self, bound: Tensor | float) -> list[Tensor]:
        values = torch.as_tensor(bound, dtype=self._dtype).expand(self.groups.count)
        return [each.clone() for each in self.groups.split(values)]

    def _l2_after(self, changed: Sequence[bool]) -> Tensor:
        """Each tensor's norm after a clamp; only those that changed are read again."""
        if not any(changed):
            return self.total_before
        grads = [g if change else None for g, change in zip(self._grads, changed, strict=True)]
        bound = self.decision.bounds
        # Elements cut at a usual number have squares that any dtype's sum holds.
        usual = isinstance(bound, float) and 1e-15 < bound < 1e15
        after = self.groups.tensor_norms(grads, self._norm.device, recheck=not usual)
        if all(changed):
            return after
        mask = torch.tensor(changed, device=after.device)
        return torch.where(mask, after, self.total_before)

    def _decided_by_band(self, decision: Decision, band: Band) -> Decision:
        """Where the bounds are not symmetric, the largest element does not tell what is cut."""
        least, most = self.groups.extremes(self._grads, decision.norm.device)
        clipped = ~((least >= band.low) & (most <= band.high))  # also where one is NaN
        after = torch.maximum(least.clamp(min=band.low).abs(), most.clamp(max=band.high).abs())
        return decision._replace(clipped=clipped, clipped_norm=after)


def clamp_unmeasured(clamps: Sequence[BoundClamp], step: int, params: Sequence[Tensor]) -> bool:
    """Clamp all without measuring any; whether there were gradients.

    Args:
        clamps: strategies of which each is a `BoundClamp.constant_clamp`.
        step: how many steps came before this one.
        params: all parameters.
    """
    if len(clamps) > 1:  # at one limit for all, twice is once
        _separate(params)
    try:
        return _clamp_each(clamps, step)
    except RuntimeError:  # torch does not write to elements that lie in one place
        if not _separate(params):
            raise
        return _clamp_each(clamps, step)


def _clamp_each(clamps: Sequence[BoundClamp], step: int) -> bool:
    clamped = [part.clamp_unmeasured(step) for part in clamps]
    return any(clamped)


def _separate(params: Sequence[Tensor]) -> bool:
    grads = gradients(params)
    strided = not any(grad is not None and grad.is_sparse for grad in grads)
    return AliasedGradients().separate(params, grads, strided=strided)
