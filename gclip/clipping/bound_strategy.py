"""One strategy at work on some parameters: its groups, its memory, and the step under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gclip.clipping.answers import check_learned, check_limit, remembered
from gclip.clipping.dtensor import Gathered, group, is_sharded, local
from gclip.clipping.float64_limits import exceeds_float32, for_dtype
from gclip.clipping.groups import Groups
from gclip.clipping.hyperparameters import OptimizerHyperparameters
from gclip.clipping.norms import ALL_FINITE, norm_type
from gclip.clipping.rules import Decision, decide, leave_nonfinite_groups, remember_step
from gclip.clipping.sparse import Sparse
from gclip.clipping.state import copied, retyped, selected
from gclip.clipping.units import Axis
from gclip.core.schedules import at_step
from gclip.core.seen import Rate, Seen
from gclip.core.strategy import Memory, Strategy, measured_order, remembers
from gclip.errors import UsageError


class BoundStrategy:
    """The verbs of a clipper, for one strategy: `take`, `measure`, `ask`, `clip`.

    Args:
        strategy: what decides.
        names: of the parameters.
        params: the parameters.
        indices: of the parameters, among all of the clipper.
        first: whether it is the first in its chain.
        last: whether it is the last in its chain.
        axes: where each parameter's units lie; by default along dimension 0.
        hyperparameters: the optimizer's, where it is known.
        total_steps: how many steps the run will have, for schedules that do not say it.
        keep_nonfinite: whether gradients that are not finite are clipped all the same.
        recording: whether `total_before` and `total_after` are wanted.
        fused: whether another multiplies by the factor: see `gclip.clipping.fused`.

    Attributes:
        decision: what was decided in the last step.
        total_before, total_after: the norms that the record adds up: L2 norms of the groups, or
            of the tensors where elements are clamped, whatever norm the strategy is about.
        weights: the parameters; on the update side, as they were before the optimizer's step.
    """

    decision: Decision
    total_before: Tensor
    total_after: Tensor
    writes_at_once = False
    """Whether `ask` may write to gradients, which must have memory of their own by then."""

    def __init__(
        self,
        strategy: Strategy,
        names: list[str],
        params: list[Tensor],
        indices: list[int],
        *,
        first: bool = True,
        last: bool = True,
        axes: Sequence[Axis] | None = None,
        hyperparameters: OptimizerHyperparameters | None = None,
        total_steps: int | None = None,
        keep_nonfinite: bool = False,
        recording: bool = True,
        fused: bool = False,
    ) -> None:
        self.strategy, self.params, self.indices = strategy, params, indices
        self.first, self.last = first, last
        self.weights: Sequence[Tensor] = params
        self.groups = self._group(names, params, axes)
        self._hyperparameters, self._total_steps = hyperparameters, total_steps
        self._keep_nonfinite, self._recording, self._fused = keep_nonfinite, recording, fused
        self._varies, self._exceeds = bool(strategy.varying), exceeds_float32(strategy)
        self._sharded = any(map(is_sharded, params))
        self._lent: list[Sparse | Gathered] = []
        self.memory: Memory | None = None
        self._device: torch.device | None = None
        self._dtype: torch.dtype | None = None  # of the norms that memory is made for
        self._grads: list[Tensor | None] = []
        self._sources: list[Tensor | None] = []  # on the update side: what the update came from
        self._complete = False
        self._norm: Tensor
        self._unchecked = True  # no answer of the strategy has been looked at
        self._order = measured_order(strategy)
        self._normalizes = strategy.rule == "normalize"  # what is small becomes large

    @property
    def remembers(self) -> bool:
        """Whether the strategy keeps anything between steps."""
        return remembers(self.strategy)

    @property
    def measured(self) -> Tensor:
        """The norms of this step, ``(groups,)`` float32."""
        return self._norm

    @property
    def writes(self) -> bool:
        """Whether `clip` may write to gradients."""
        return not self._fused and not self.decision.idle

    def fuse(self) -> None:
        """Leave the multiplication by the factor to an optimizer from now on."""
        self._fused = True

    # -- measure -----------------------------------------------------------------------------

    def take(self, grads: Sequence[Tensor | None], *, plain: bool = False) -> None:
        """This step's gradients of all the clipper's parameters, of which these are some.

        `plain` where it is known that all are there, none sparse or spread over processes.
        """
        own = [grads[i] for i in self.indices]
        if plain:
            self._grads, self._lent, self._complete = own, [], True
        else:
            self._take_any(own)

    def take_update(
        self,
        deltas: Sequence[Tensor | None],
        before: Mapping[int, Tensor],
        grads: Sequence[Tensor | None],
    ) -> None:
        """As `take`, on the side ``update``.

        Args:
            deltas: the optimizer's step, of all the clipper's parameters.
            before: the parameters before it, by their indices.
            grads: the gradients that it came from, of all parameters.
        """
        self.weights = [before[i] for i in self.indices]
        self._sources = [grads[i] for i in self.indices]
        self.take(deltas)

    def release(self) -> None:
        """Let go of what `take_update` took."""
        self.weights, self._sources = self.params, []

    def measure(self) -> None:
        """Measure the norms. Then `recheck`."""
        self._norm = self.groups.norms(self._grads, self._order, self._place())

    def recheck(self) -> Tensor:
        """Whether all norms are finite, bool ``(1,)``.

        Sums of powers overflow, or vanish, long before the gradients do: measured again where the
        host can tell.
        """
        self._norm, finite = self.groups.recheck(
            self._grads, self._order, self._norm, zeros=self._normalizes
        )
        if self._norm.dtype != self._dtype:
            self._follow_dtype()
        self.total_before = self._norm
        if self._recording and self._order != 2.0:
            self.total_before = self._l2(self._grads)
        return finite

    def leave_graph(self) -> None:
        """After `measure` as part of a compiled graph: what it returned, to be kept.

        Where the graph is replayed, as CUDA graphs are, it writes over what it returned before.
        """
        self._place()
        self._norm = self._norm.clone()

    # -- ask ---------------------------------------------------------------------------------

    def at_step(self, step: int, dtype: torch.dtype | None = None) -> Strategy:
        """The strategy with plain numbers for whatever follows a schedule, or exceeds `dtype`
        (by default that of the norms)."""
        now = at_step(self.strategy, step, self._total_steps) if self._varies else self.strategy
        if not self._exceeds:
            return now
        return for_dtype(now, dtype or self._dtype or norm_type(self.params))

    def ask(self, step: int, finite: Tensor) -> Tensor | None:
        """Let the strategy decide and learn; whether it wants the step skipped, ``(1,)``."""
        strategy = self.at_step(step)
        if self.memory is None:
            self.memory = remembered(strategy, torch.zeros_like(self._norm))
        valid = self._valid(finite)
        seen = self._seen(step, valid, self._norm)
        decision = decide(strategy, seen, self.memory)
        if self._keep_nonfinite and finite is not ALL_FINITE:
            decision = leave_nonfinite_groups(decision, clamps=strategy.clamps)
        self.decision = decision
        memory = remember_step(strategy, seen, decision.clipped_norm, self.memory, valid)
        if self._unchecked:
            self._check_answers(strategy, step, memory)
        self.memory = memory
        return decision.skip

    def enter_graph(self) -> None:
        """Before `clip` as part of a compiled graph: what it reads are tensors, no numbers."""
        self.decision = self.decision._replace(idle=False)  # one graph, not one for each

    # -- clip --------------------------------------------------------------------------------

    def clip(self) -> None:
        """Change the gradients as decided; on a CPU, write nothing where nothing changes."""
        decision = self.decision
        # A skipped step becomes zero as a whole, afterwards; a chain's next sees it before.
        if not decision.idle and not self._fused and (decision.skip is None or not self.last):
            self.groups.scale(self._grads, decision.factor, decision.clipped)
        self.total_after = decision.clipped_norm
        if self._order != 2.0:
            self.total_after = self.total_before * decision.factor
        if self._lent:
            self._give_back()

    def load_memory(self, memory: Any, groups: Sequence[str], /) -> None:
        """Go on with a memory whose groups have these names; they may be more, in any order.

        It moves to the gradients' device at the next step.

        Raises:
            UsageError: a group that is not among them.
        """
        self.memory, self._device, self._dtype = copied(memory), None, None
        if self.memory is not None and tuple(groups) != self.groups.labels:
            index_of = {name: index for index, name in enumerate(groups)}
            unknown = [name for name in self.groups.labels if name not in index_of]
            if unknown:
                raise UsageError(
                    f"the state of {self.strategy} has no group {unknown[0]!r}: it was made for "
                    "other groups of these parameters"
                )
            indices = torch.tensor([index_of[name] for name in self.groups.labels])
            self.memory = selected(self.memory, indices, len(groups))

    # -- inside ------------------------------------------------------------------------------

    def _group(self, names: list[str], params: list[Tensor], axes: Sequence[Axis] | None) -> Groups:
        return group(names, params, self.strategy.scope, axes)

    def _take_any(self, grads: list[Tensor | None]) -> None:
        self._grads, self._lent = grads, []
        self._complete = not [g for g in grads if g is None]
        if [g for g in grads if g is not None and g.is_sparse]:
            for index, grad in enumerate(grads):
                if grad is not None and grad.is_sparse:
                    rows = Sparse(grad)
                    # Rows that are not there are zero: only what looks at single rows needs them.
                    grads[index] = rows.densify() if self._needs_dense else rows.values
                    self._lent.append(rows)
        if self._sharded:
            self._take_shards(grads)

    def _take_shards(self, grads: list[Tensor | None]) -> None:
        grads[:] = [None if grad is None else local(grad) for grad in grads]

    @property
    def _needs_dense(self) -> bool:
        return self.groups.scope == "unit"

    def _check_answers(self, strategy: Strategy, step: int, memory: Memory) -> None:
        """The first answers of the strategy: later ones are like them."""
        check_learned(strategy, memory, self.memory or {})
        if step >= strategy.first_limited_step:
            check_limit(strategy, self.decision.bounds, self._norm)
            self._unchecked = False

    def _give_back(self) -> None:
        """What was done to copies of gradients, done to the gradients."""
        for copy in self._lent:
            copy.give_back()
        self._lent = []

    def _place(self) -> torch.device:
        """The device of the gradients; memory follows when the model has moved."""
        first = self._grads[0] if self._grads else None
        if first is None:
            first = next((g for g in self._grads if g is not None), self.params[0])
        device = first.device
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
        """The L2 norms that the record adds up, of the groups."""
        return self.groups.measure(grads, 2.0, self._norm.device, zeros=self._normalizes)[0]

    def _seen(
        self,
        step: int,
        valid: Tensor | None,
        norm: Tensor | Callable[[], Tensor],
    ) -> Seen:
        order, groups, trained = self._order, self.groups, self._trained
        if isinstance(norm, Tensor):
            device, dtype = norm.device, norm.dtype
        else:
            device, dtype = self._place(), self._dtype or norm_type(self.params)
        return Seen(
            norm,
            step=step,
            weight_norm=lambda: groups.norms(trained(self.weights), order, device).to(dtype),
            size=lambda: groups.sizes(device, [p.requires_grad for p in self.params], dtype=dtype),
            lr=self._hyperparameter("lr", dtype),
            weight_decay=self._hyperparameter("weight_decay", dtype),
            valid=valid,
            total_steps=self._total_steps,
        )

    def _trained(self, weights: Sequence[Tensor]) -> list[Tensor | None]:
        """Without those that are frozen: they count as zero, whatever their dtype."""
        if weights is self.params:
            return [param if param.requires_grad else None for param in self.params]
        pairs = zip(weights, self.params, strict=True)
        return [weight if param.requires_grad else None for weight, param in pairs]

    def _hyperparameter(self, key: str, dtype: torch.dtype) -> Callable[[], Rate] | None:
        known = self._hyperparameters
        if known is None:
            return None
        trained = [p.requires_grad for p in self.params]
        return lambda: known.spread(key, self.groups, self._norm.device, trained, dtype=dtype)

    def _valid(self, finite: Tensor) -> Tensor | None:
        """Which groups' norms may enter memory; None where the host knows that all may."""
        if finite is ALL_FINITE and self._complete:
            return None
        device = self._norm.device
        valid = finite.to(device).expand_as(self._norm)
        return valid if self._complete else valid & self.groups.present(self._grads, device)
