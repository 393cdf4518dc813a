"""An optimizer's step, to be clipped before it counts: the parameters before it are saved.

The step (the update) is δ = parameters after it − parameters before it, so it holds all that the
optimizer puts into a step: momentum, preconditioning, learning rate, decoupled weight decay. It
costs a copy of the parameters, and memory for the same again while it is measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class PendingUpdate(ABC):
    """The parameters before an optimizer's step.

    `save` them, let the optimizer step, `measure`, then `write` or `restore`.
    """

    def __init__(self) -> None:
        self._before: list[Tensor] | None = None
        self._deltas: list[Tensor | None] = []

    @abstractmethod
    def current(self) -> list[Tensor]:
        """The parameters as they are now, detached."""

    @abstractmethod
    def measure(self) -> Tensor:
        """After the step: measure it; is it finite? ``(1,)``, of a fleet ``(runs, 1)``."""

    @abstractmethod
    def zero(self, skip: Tensor) -> None:
        """Set the update to zero where `skip`."""

    @abstractmethod
    def select(self, flags: Tensor) -> Tensor:
        """Of flags of all that is clipped, those of what this update is about."""

    @abstractmethod
    def merge(self, skip: Tensor | None, wants_skip: Tensor) -> Tensor:
        """Flags of all that is clipped: `skip`, and what the update is skipped for."""

    @property
    def is_saved(self) -> bool:
        """Whether the parameters before a step are kept, waiting for the step."""
        return self._before is not None

    @property
    def before(self) -> list[Tensor]:
        """The parameters as they were before the step."""
        return self._before or []

    def save(self) -> None:
        """Before the optimizer's step: keep the parameters as they are."""
        self._before = [param.clone() for param in self.current()]

    def take(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """After the step: what it changed, to be clipped in place; None where there is no gradient.

        Args:
            grads: of `current`.
        """
        each = zip(self.current(), self.before, grads, strict=True)
        self._deltas = [None if grad is None else now - before for now, before, grad in each]
        return self._deltas

    def write(self, skipped: Tensor | None) -> None:
        """Give the parameters the update as it was clipped; what did not change keeps its bits.

        Where `skipped`, bool ``(1,)`` or ``(runs, 1)``, is true, they have the bits of before.
        """
        for now, before, delta in zip(self.current(), self.before, self._deltas, strict=True):
            if delta is not None:
                new = torch.where(delta == now - before, now, before + delta)
                if skipped is not None:
                    shape = (-1, *[1] * (now.ndim - 1)) if now.ndim else ()
                    new = torch.where(skipped.view(shape).to(new.device), before, new)
                now.copy_(new)
        self.discard()

    @torch.no_grad()
    def restore(self) -> None:
        """Take the step back."""
        for now, before in zip(self.current(), self.before, strict=True):
            now.copy_(before)
        self.discard()

    def discard(self) -> None:
        """Forget the parameters before the step."""
        self._before, self._deltas = None, []
