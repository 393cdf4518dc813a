"""The update side: clip the step that an optimizer has just taken.

The update is δ = parameters after the step − parameters before it, so it holds all that the
optimizer puts into a step: momentum, preconditioning, learning rate, decoupled weight decay. It
costs a copy of the parameters, and memory for the same again while it is measured.

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
from gclip.clipping.bound_transform import BoundTransform
from gclip.clipping.gradients import gradients
from gclip.clipping.norms import ALL_FINITE
from gclip.clipping.step_snapshot import StepSnapshot
from gclip.core.host import on_host
from gclip.errors import UsageError


class UpdateClipper:
    """The parts of a clipper that work on the update of the parameters `params`.

    Args:
        optimizer: whose state, and all of whose parameters, are put back when a step is skipped.
            Where it is not known, that is done for `params` alone.
        skips: whether a step may be skipped.

    Raises:
        UsageError: a strategy whose rule is ``skip``, and no optimizer.
    """

    def __init__(
        self,
        parts: list[BoundStrategy],
        params: Sequence[Tensor],
        optimizer: torch.optim.Optimizer | None,
        skips: bool,
    ) -> None:
        skipping = next((p.strategy for p in parts if p.strategy.rule == "skip"), None)
        if optimizer is None and skipping is not None:
            raise UsageError(
                f"{skipping} skips updates that the optimizer has made, and needs it to put its "
                "momentum back: pass Clipper(…, optimizer=optimizer), or use gclip.attach"
            )
        self.parts, self._params, self._optimizer, self._skips = parts, params, optimizer, skips
        places = sorted({place for part in parts for place in part.places})
        self._places = places
        self._kept: list[Tensor] | None = None
        self._deltas: list[Tensor | None] = []
        self._before: StepSnapshot | None = None

    @property
    def held(self) -> bool:
        """Whether the parameters before a step are kept, waiting for the step."""
        return self._kept is not None

    def hold(self) -> None:
        """Before the optimizer's step: keep the parameters (and its state) as they are."""
        if torch.compiler.is_compiling():
            from gclip.clipping.graph_breaks import outside

            outside(self.hold)
            return
        self._kept = [self._params[i].detach().clone() for i in self._places]
        if self._skips:
            mine = {id(self._params[i]) for i in self._places}
            groups = [] if self._optimizer is None else self._optimizer.param_groups
            every = [p for group in groups for p in group["params"]] or self._params
            self._before = StepSnapshot(self._optimizer, [p for p in every if id(p) not in mine])

    def measure(self, recording: bool) -> Tensor:
        """After the optimizer's step: measure the update; is it finite? ``(1,)``."""
        kept = dict(zip(self._places, self._kept or [], strict=True))
        grads = gradients(self._params)
        self._deltas = [
            p.detach() - kept[i] if i in kept and grad is not None else None
            for i, (p, grad) in enumerate(zip(self._params, grads, strict=True))
        ]
        for part in self.parts:
            if part.first:
                part.take(self._deltas)
            part.weights = [kept[i] for i in part.places]
            if isinstance(part, BoundTransform):
                part.gradients = [grads[i] for i in part.places]
        firsts = [part for part in self.parts if part.first]
        for part in firsts:
            part.measure()
        found = [part.look_again(recording) for part in firsts]
        if all(each is ALL_FINITE for each in found):
            return ALL_FINITE
        return torch.cat([each.to(found[0].device) for each in found]).all().view(1)

    @property
    def all_deltas(self) -> list[Tensor | None]:
        """One entry a parameter of the clipper, to be clipped in place; None where there is no
        update, because it has no gradient."""
        return self._deltas

    def settle(self, skipped: Tensor | None) -> None:
        """Give the parameters the update as it was clipped; what did not change keeps its bits.

        Where `skipped`, bool ``(1,)``, is true, they and the optimizer's state are what they were
        before it.
        """
        if skipped is not None and on_host(skipped) and bool(skipped):
            self.undo()
            return
        for before, place in zip(self._kept or [], self._places, strict=True):
            delta, param = self._deltas[place], self._params[place].detach()
            if delta is not None:
                new = torch.where(delta == param - before, param, before + delta)
                if skipped is not None:
                    new = torch.where(skipped.view(()).to(new.device), before, new)
                param.copy_(new)
        if skipped is not None and self._before is not None:
            self._before.restore_if(skipped)
        self.drop()

    @torch.no_grad()
    def undo(self) -> None:
        """Take the step back."""
        for before, place in zip(self._kept or [], self._places, strict=True):
            self._params[place].detach().copy_(before)
        if self._before is not None:
            self._before.restore()
        self.drop()

    def drop(self) -> None:
        """Forget the parameters before the step."""
        self._kept, self._deltas, self._before = None, [], None
        for part in self.parts:
            part.weights = part.params
            if isinstance(part, BoundTransform):
                part.gradients = []
