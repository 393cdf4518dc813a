"""One strategy at work on some parameters: its groups, its memory, and the step under way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gclip.clipping.answers import check_learned, check_limit, remembered
from gclip.clipping.dtensor import Gathered, group, is_sharded, local
from gclip.clipping.float64_limits import beyond, fitted
from gclip.clipping.gradients import gradients
from gclip.clipping.groups import Groups, refuse_complex
from gclip.clipping.hyperparameters import OptimizerHyperparameters
from gclip.clipping.norms import ALL_FINITE, clamp_elements, clamp_modulus, norm_type
from gclip.clipping.rules import Decision, cutting, decide, left_alone, remember_step
from gclip.clipping.sparse import Sparse, coalesce
from gclip.clipping.state import copied, retyped, selected
from gclip.clipping.units import Axis
from gclip.core.schedules import at_step
from gclip.core.seen import Band, Limit, Rate, Seen
from gclip.core.strategy import Memory, Strategy, remembers
from gclip.errors import UsageError


class BoundStrategy:
    """The verbs of a clipper, for one strategy: `take`, `measure`, `ask`, `clip`.

    Attributes:
        made: the last step's decision.
        total_before, total_after: the norms that the record adds up: L2 norms of the groups, or
            of the tensors where elements are clamped, whatever norm the strategy is about.
        first, last: whether it is the first and the last in its chain.
    """

    made: Decision
    total_before: Tensor
    total_after: Tensor

    def __init__(
        self,
        strategy: Strategy,
        names: list[str],
        params: list[Tensor],
        places: list[int],
        *,
        axes: Sequence[Axis] | None = None,
        rates: OptimizerHyperparameters | None = None,
        total_steps: int | None = None,
        keep: bool = False,
    ) -> None:
        self.strategy, self.params, self.places = strategy, params, places
        self.weights: Sequence[Tensor] = params  # on the update side, as they were before it
        self.groups = self._group(strategy, names, params, axes)
        self._rates, self._total_steps, self._keep = rates, total_steps, keep
        self._varies, self._beyond = bool(strategy.varying), beyond(strategy)
        self._sharded = any(map(is_sharded, params))
        self._lent: list[Sparse | Gathered] = []
        self.first = self.last = True
        self.memory: Memory | None = None
        self._device: torch.device | None = None
        self._dtype: torch.dtype | None = None  # of the norms that memory is made for
        self._grads: list[Tensor | None] = []
        self._complete = False
        self._norm: Tensor
        self._unheard = True
        self.folds = False  # another multiplies by the factor: see gclip.clipping.fused
        self._clamps = strategy.scope == "element" or strategy.rule == "clamp"
        # What a clamp compares with its limit is the largest element.
        self._order = math.inf if self._clamps else strategy.order
        self._raises = strategy.rule == "normalize"  # what is small becomes large

    @property
    def constant_clamp(self) -> bool:
        """Whether gradients can be clamped without having been measured."""
        return self._clamps and type(self.strategy).learn is Strategy.learn

    @property
    def remembers(self) -> bool:
        """Whether the strategy keeps anything between steps."""
        return remembers(self.strategy)

    @property
    def measured(self) -> Tensor:
        """The norms of this step, ``(groups,)`` float32."""
        return self._norm

    @staticmethod
    def _group(
        strategy: Strategy, names: list[str], params: list[Tensor], axes: Sequence[Axis] | None
    ) -> Groups:
        return group(names, params, strategy.scope, axes)

    def take(self, grads: Sequence[Tensor | None], *, plain: bool = False) -> None:
        """This step's gradients of all the clipper's parameters, of which these are some.

        `plain` where it is known that all are there, none sparse or spread over processes.
        """
        mine = [grads[i] for i in self.places]
        if plain:
            self._grads, self._lent, self._complete = mine, [], True
        else:
            self._hold(mine)

    def _hold(self, grads: list[Tensor | None]) -> None:
        self._grads, self._lent = grads, []
        self._complete = not [g for g in grads if g is None]
        if [g for g in grads if g is not None and g.is_sparse]:
            for place, grad in enumerate(grads):
                if grad is not None and grad.is_sparse:
                    rows = Sparse(grad)
                    # Rows that are not there are zero: only what looks at single rows needs them.
                    grads[place] = rows.spread() if self._by_element else rows.values
                    self._lent.append(rows)
        if self._sharded:
            self._hold_shards(grads)

    def _hold_shards(self, grads: list[Tensor | None]) -> None:
        grads[:] = [None if grad is None else local(grad) for grad in grads]

    @property
    def _by_element(self) -> bool:
        return self.groups.scope == "unit"

    def now(self, step: int, dtype: torch.dtype | None = None) -> Strategy:
        """The strategy with plain numbers for whatever follows a schedule, or is beyond `dtype`
        (by default that of the norms)."""
        now = at_step(self.strategy, step, self._total_steps) if self._varies else self.strategy
        return fitted(now, dtype or self._dtype or norm_type(self.params)) if self._beyond else now

    def measure(self) -> None:
        """Measure the norms. Then `look_again`."""
        self._norm = self.groups.norms(self._grads, self._order, self._place())

    def look_again(self, recording: bool) -> Tensor:
        """Whether all norms are finite, bool ``(1,)``.

        Sums of powers overflow, or vanish, long before the gradients do: measured again where the
        host can tell.
        """
        self._norm, finite = self.groups.look_again(
            self._grads, self._order, self._norm, zeros=self._raises
        )
        if self._norm.dtype != self._dtype:
            self._follow_dtype()
        self.total_before = self._norm
        if recording and self._order != 2.0:
            self.total_before = self._l2(self._grads)
        return finite

    def leave_graph(self) -> None:
        """After `measure` as part of a compiled graph: what it returned, to be kept.

        Where the graph is replayed, as CUDA graphs are, it writes over what it returned before.
        """
        self._place()
        self._norm = self._norm.clone()

    def ask(self, step: int, finite: Tensor) -> Tensor | None:
        """Let the strategy decide and learn; whether it wants the step skipped, ``(1,)``."""
        strategy = self.now(step)
        if self.memory is None:
            self.memory = remembered(strategy, torch.zeros_like(self._norm))
        valid = self._valid(finite)
        seen = self._seen(step, valid, self._norm)
        self.made = decide(strategy, seen, self.memory)
        if self._keep and finite is not ALL_FINITE:
            self.made = left_alone(self.made, clamps=self._clamps)
        memory = remember_step(strategy, seen, self.made.clipped_norm, self.memory, valid)
        if self._unheard:
            self._hear(strategy, step, memory)
        self.memory = memory
        if self._clamps and isinstance(self.made.bounds, Band):
            self.made = self._decided_by_band(self.made, self.made.bounds)
        return self.made.skip

    @property
    def writes(self) -> bool:
        """Whether `clip` may write to gradients."""
        return not self.folds and (not self.made.idle or isinstance(self.made.bounds, Band))

    def enter_graph(self, recording: bool) -> None:
        """Before `clip` as part of a compiled graph: what it reads are tensors, no numbers."""
        if self._clamps:
            like, bounds = torch.zeros_like(self._norm[:1]), self.made.bounds
            if isinstance(bounds, Band):
                tensors: Limit = Band(like + bounds.low, like + bounds.high)
            else:
                tensors = like + bounds
            self.made = self.made._replace(bounds=tensors)
        else:
            self.made = self.made._replace(idle=False)  # one graph, not one for each

    def clip(self, recording: bool) -> None:
        """Change the gradients as decided; on a CPU, write nothing where nothing changes."""
        if not self._clamps:
            if not self.made.idle and not self.folds:
                self.groups.scale(self._grads, self.made.factor, self.made.clipped)
            self.total_after = self.made.clipped_norm
            if self._order != 2.0:
                self.total_after = self.total_before * self.made.factor
            self._give_back()
            return
        changed = self.groups.changed(self.made.clipped)
        self._clamp(self.made.bounds, changed)
        self._give_back()
        if recording and self.last:
            self.total_after = self._after(changed)

    def _hear(self, strategy: Strategy, step: int, memory: Memory) -> None:
        """The first answers of the strategy: later ones are like them."""
        check_learned(strategy, memory, self.memory or {})
        if step >= strategy.warmup or strategy.own_warmup:
            check_limit(strategy, self.made.bounds, self._norm)
            self._unheard = False

    def _give_back(self) -> None:
        """What was done to copies of gradients, done to the gradients."""
        for each in self._lent:
            each.give_back()
        self._lent = []

    def clamp_unmeasured(self, step: int) -> bool:
        """Clamp without measuring; only where `constant_clamp`. Whether there were gradients."""
        grads = gradients(self.params)
        sparse = [g for g in grads if g is not None and g.is_sparse]
        if sparse:
            coalesce(self.params)
            grads = gradients(self.params)
        strategy = self.now(step)
        waiting = step < strategy.warmup and not strategy.own_warmup
        limit = math.inf if waiting else strategy.limit(self._seen(step, None, self._measured), {})
        if isinstance(limit, float) and not sparse:
            there = [g for g in grads if g is not None]
            clamp_elements(there, -limit, limit)
            return bool(there)
        self._hold(grads)
        self._clamp(cutting(limit), [True] * len(self.params))
        self._give_back()
        return any(g is not None for g in self._grads)

    def take_over(self, memory: Any, groups: Sequence[str]) -> None:
        """Go on with a memory whose groups have these names; they may be more, in any order.

        It moves to the gradients' device at the next step.

        Raises:
            UsageError: a group that is not among them.
        """
        self.memory, self._device, self._dtype = copied(memory), None, None
        if self.memory is not None and tuple(groups) != self.groups.labels:
            there = {name: place for place, name in enumerate(groups)}
            strange = [name for name in self.groups.labels if name not in there]
            if strange:
                raise UsageError(
                    f"the state of {self.strategy} has no group {strange[0]!r}: it was made for "
                    "other groups of these parameters"
                )
            places = torch.tensor([there[name] for name in self.groups.labels])
            self.memory = selected(self.memory, places, len(groups))

    # -- inside ------------------------------------------------------------------------------

    def _measured(self) -> Tensor:
        """The norms, for a strategy that reads them though its clamp was to go unmeasured."""
        self._hold(gradients(self.params))
        self.measure()
        self.look_again(False)
        return self._norm

    def _place(self) -> torch.device:
        """The device of the gradients; memory follows when the model has moved."""
        there = (g for g in self._grads if g is not None)
        device = next(there, self.params[0]).device
        if device != self._device and not torch.compiler.is_compiling():
            if self.memory is not None:
                self.memory = copied(self.memory, device)
            self._device = device
        return device

    def _follow_dtype(self) -> None:
        """Norms have another dtype than before: memory is made ready for it."""
        if self._norm.dtype == torch.float32 and norm_type(self.params) == torch.float64:
            self._norm = self._norm.double()  # only the gradients that are float64 are missing
        if self._norm.dtype != self._dtype:
            self._dtype = self._norm.dtype
            self._retype(self._dtype)

    def _retype(self, dtype: torch.dtype) -> None:
        self.memory = retyped(self.memory, dtype)

    def _l2(self, grads: Sequence[Tensor | None]) -> Tensor:
        """The L2 norms of the groups, or of the tensors where elements are clamped."""
        if self._clamps:
            return self.groups.tensor_norms(grads, self._norm.device)
        return self.groups.measure(grads, 2.0, self._norm.device, zeros=self._raises)[0]

    def _seen(
        self,
        step: int,
        valid: Tensor | None,
        norm: Tensor | Callable[[], Tensor],
        device: torch.device | None = None,
    ) -> Seen:
        device, order = device or self._place(), self._order
        dtype = norm.dtype if isinstance(norm, Tensor) else self._dtype or norm_type(self.params)
        return Seen(
            norm,
            step=step,
            weight_norm=lambda: _as(
                self.groups.norms(self._trained(self.weights), order, device), dtype
            ),
            size=lambda: self.groups.sizes(
                device, [p.requires_grad for p in self.params], dtype=dtype
            ),
            lr=self._rate("lr", dtype),
            weight_decay=self._rate("weight_decay", dtype),
            valid=valid,
            total_steps=self._total_steps,
        )

    def _trained(self, weights: Sequence[Tensor]) -> list[Tensor | None]:
        """Without those that are frozen: they count as zero, whatever their dtype."""
        if weights is self.params:
            return [param if param.requires_grad else None for param in self.params]
        pairs = zip(weights, self.params, strict=True)
        return [weight if param.requires_grad else None for weight, param in pairs]

    def _rate(self, key: str, dtype: torch.dtype) -> Callable[[], Rate] | None:
        rates = self._rates
        if rates is None:
            return None
        trained = [p.requires_grad for p in self.params]
        return lambda: rates.spread(key, self.groups, self._norm.device, trained, dtype=dtype)

    def _valid(self, finite: Tensor) -> Tensor | None:
        """Which groups' norms may enter memory; None where the host knows that all may."""
        missing = not self._complete
        device = self._norm.device
        if finite is ALL_FINITE and not missing:
            return None
        valid = finite.to(device).expand_as(self._norm)
        return valid & self.groups.present(self._grads, device) if missing else valid

    def _clamp(self, limit: Limit, changed: Sequence[bool]) -> None:
        low, high = limit if isinstance(limit, Band) else (None, limit)
        if low is not None:
            refuse_complex(self._grads)
        if not isinstance(low, Tensor) and not isinstance(high, Tensor):
            there = [
                g
                for g, change in zip(self._grads, changed, strict=True)
                if g is not None and change
            ]
            clamp_elements(there, -high if low is None else low, high)
            return
        highs = self._bounds(high)
        lows = [-each for each in highs] if low is None else self._bounds(low)
        grads = self.groups.views(self._grads)
        for grad, below, above, change in zip(grads, lows, highs, changed, strict=True):
            if grad is None or not change:
                continue
            if grad.is_complex():
                clamp_modulus(grad, above)
            else:
                grad.clamp_(below.to(grad), above.to(grad))

    def _after(self, changed: Sequence[bool]) -> Tensor:
        """Each tensor's norm after a clamp; only those that changed are read again."""
        if not any(changed):
            return self.total_before
        grads = [g if change else None for g, change in zip(self._grads, changed, strict=True)]
        bound = self.made.bounds
        # Elements cut at a usual number have squares that any dtype's sum holds.
        usual = isinstance(bound, float) and 1e-15 < bound < 1e15
        after = self.groups.tensor_norms(grads, self._norm.device, again=not usual)
        if all(changed):
            return after
        mask = torch.tensor(changed, device=after.device)
        return torch.where(mask, after, self.total_before)

    def _decided_by_band(self, made: Decision, band: Band) -> Decision:
        """Where the bounds are not symmetric, the largest element does not tell what is cut."""
        least, most = self.groups.ends(self._grads, made.norm.device)
        clipped = ~((least >= band.low) & (most <= band.high))  # also where one is NaN
        after = torch.maximum(least.clamp(min=band.low).abs(), most.clamp(max=band.high).abs())
        return made._replace(clipped=clipped, clipped_norm=after)

    def _bounds(self, limit: Tensor | float) -> list[Tensor]:
        spread = torch.as_tensor(limit, dtype=self._dtype).expand(self.groups.count)
        return [each.clone() for each in self.groups.split(spread)]


def _as(norms: Tensor, dtype: torch.dtype) -> Tensor:
    return norms if norms.dtype == dtype else norms.to(dtype)
