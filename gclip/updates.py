"""The update side: clip the step that an optimizer has just taken.

The update is δ = parameters after the step − parameters before it, so it holds all that the
optimizer puts into a step: momentum, preconditioning, learning rate, decoupled weight decay. It
costs a copy of the parameters, and memory for the same again while it is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gclip.elementwise import TransformPart
from gclip.norms import YES
from gclip.part import Part


class Updates:
    """The parts of a clipper that work on the update of the parameters `params`."""

    def __init__(self, parts: list[Part], params: Sequence[Tensor]) -> None:
        self.parts, self._params = parts, params
        places = sorted({place for part in parts for place in part.places})
        self._places = places
        self._kept: list[Tensor] | None = None
        self._deltas: list[Tensor | None] = []

    @property
    def held(self) -> bool:
        """Whether the parameters before a step are kept, waiting for the step."""
        return self._kept is not None

    def hold(self) -> None:
        """Before the optimizer's step: keep the parameters as they are."""
        self._kept = [self._params[i].detach().clone() for i in self._places]

    def measure(self, recording: bool) -> Tensor:
        """After the optimizer's step: measure the update; is it finite? ``(1,)``."""
        kept = dict(zip(self._places, self._kept or [], strict=True))
        self._deltas = [
            p.detach() - kept[i] if i in kept and p.grad is not None else None
            for i, p in enumerate(self._params)
        ]
        for part in self.parts:
            if part.first:
                part.take(self._deltas)
            part.weights = [kept[i] for i in part.places]
            if isinstance(part, TransformPart):
                part.gradients = [self._params[i].grad for i in part.places]
        found = [part.measure(recording) for part in self.parts if part.first]
        if all(each is YES for each in found):
            return YES
        return torch.cat([each.to(found[0].device) for each in found]).all().view(1)

    @property
    def all_deltas(self) -> list[Tensor | None]:
        """One entry a parameter of the clipper, to be clipped in place; None where there is no
        update, because it has no gradient."""
        return self._deltas

    def settle(self) -> None:
        """Give the parameters the update as it was clipped; what did not change keeps its bits."""
        for before, place in zip(self._kept or [], self._places, strict=True):
            delta, param = self._deltas[place], self._params[place].detach()
            if delta is not None:
                param.copy_(torch.where(delta == param - before, param, before + delta))
        self.drop()

    def drop(self) -> None:
        """Forget the parameters before the step."""
        self._kept, self._deltas = None, []
        for part in self.parts:
            part.weights = part.params
            if isinstance(part, TransformPart):
                part.gradients = []
