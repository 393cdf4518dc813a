"""The update side: clip the step an optimizer has just taken (`gclip.clipping.pending_update`).

An update may turn out to be one to skip (``rule=skip``, or it is not finite) when the optimizer has
made it. So that its momentum and step counts stay as they were, too, they are copied before the
step: memory for the optimizer's state once more (with momentum that of the parameters, with Adam
twice). Only under ``nonfinite="keep"``, and with no strategy whose rule is ``skip``, nothing can be
skipped and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.gradients import gradients, stored_elements
from gclip.clipping.pending_update import PendingUpdate
from gclip.clipping.step_flags import all_true, either, zero_where
from gclip.clipping.step_snapshot import StepSnapshot
from gclip.core.host import on_host
from gclip.errors import UsageError


class UpdateClipper(PendingUpdate):
    """The strategies that work on the update of the parameters `params`.

    Args:
        parts: the strategies, in the order in which they act.
        params: all the clipper's parameters.
        optimizer: whose state, and all of whose parameters, are put back when a step is skipped.
            Where it is not known, that is done for `params` alone.
        may_skip: whether a step may be skipped.

    Raises:
        UsageError: a strategy whose rule is ``skip``, and no optimizer.
    """

    def __init__(
        self,
        parts: list[BoundStrategy],
        params: Sequence[Tensor],
        optimizer: torch.optim.Optimizer | None,
        may_skip: bool,
    ) -> None:
        super().__init__()
        skipping = next((p.strategy for p in parts if p.strategy.rule == "skip"), None)
        if optimizer is None and skipping is not None:
            raise UsageError(
                f"{skipping} skips updates that the optimizer has made, and needs it to put its "
                "momentum back: pass Clipper(…, optimizer=optimizer), or use gclip.attach"
            )
        self.parts, self._params = parts, params
        self._optimizer, self._may_skip = optimizer, may_skip
        self._indices = sorted({index for part in parts for index in part.indices})
        self._snapshot: StepSnapshot | None = None
        self.deltas: list[Tensor | None] = []

    def current(self) -> list[Tensor]:
        """The parameters as they are now, detached."""
        return [self._params[i].detach() for i in self._indices]

    def save(self) -> None:
        """Before the optimizer's step: keep the parameters (and its state) as they are."""
        if torch.compiler.is_compiling():
            from gclip.clipping.graph_breaks import outside

            outside(self.save)
            return
        super().save()
        if self._may_skip:
            own = {id(self._params[i]) for i in self._indices}
            groups = [] if self._optimizer is None else self._optimizer.param_groups
            every = [p for group in groups for p in group["params"]] or self._params
            self._snapshot = StepSnapshot(self._optimizer, [p for p in every if id(p) not in own])

    def measure(self) -> Tensor:
        """After the optimizer's step: measure the update; is it finite? ``(1,)``."""
        grads = gradients(self._params)
        deltas = dict(zip(self._indices, self.take([grads[i] for i in self._indices]), strict=True))
        # One entry a parameter of the clipper; None where there is no update.
        self.deltas = [deltas.get(i) for i in range(len(self._params))]
        before = dict(zip(self._indices, self.before, strict=True))
        for part in self.parts:
            part.take_update(self.deltas, before, grads)
        firsts = [part for part in self.parts if part.first]
        for part in firsts:
            part.measure()
        return all_true([part.recheck() for part in firsts])

    def clip(self, step: int, finite: Tensor) -> Tensor | None:
        """Ask each strategy, clip, let it learn; whether any wants the step skipped, ``(1,)``.

        Args:
            step: how many steps came before this one.
            finite: whether it may enter memory, ``(1,)``.
        """
        skip: Tensor | None = None
        for part in self.parts:
            if not part.first:
                part.take(self.deltas)
                part.measure()
                part.recheck()
            wants_skip = part.ask(step, finite if skip is None else finite & ~skip)
            part.clip()
            skip = either(skip, wants_skip)
        return skip

    def zero(self, skip: Tensor) -> None:
        """Set the update to zero where `skip`, bool ``(1,)``, is true."""
        zero_where(skip, stored_elements(self.deltas))

    def select(self, flags: Tensor) -> Tensor:
        """The flags of the step, which is one."""
        return flags

    def merge(self, skip: Tensor | None, wants_skip: Tensor) -> Tensor:
        """Whether the step is skipped, ``(1,)``."""
        return wants_skip if skip is None else skip | wants_skip.to(skip.device)

    def write(self, skipped: Tensor | None) -> None:
        """Give the parameters the update as it was clipped; what did not change keeps its bits.

        Where `skipped`, bool ``(1,)``, is true, they and the optimizer's state are what they were
        before it.
        """
        if skipped is not None and on_host(skipped) and bool(skipped):
            self.restore()
            return
        snapshot = self._snapshot
        super().write(skipped)
        if skipped is not None and snapshot is not None:
            snapshot.restore_if(skipped)

    @torch.no_grad()
    def restore(self) -> None:
        """Take the step back."""
        snapshot = self._snapshot
        super().restore()
        if snapshot is not None:
            snapshot.restore()

    def discard(self) -> None:
        """Forget the parameters before the step."""
        super().discard()
        self.deltas, self._snapshot = [], None
        for part in self.parts:
            part.release()
