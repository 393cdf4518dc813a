"""A strategy fed with numbers, without parameters: norms, or the elements a transform sees."""

from __future__ import annotations

import torch
from torch import Tensor

from gclip.clipping.rules import decide, remember_step, transformed
from gclip.core.seen import Elements, Seen
from gclip.core.strategy import Memory, Strategy, Transform
from gclip.testing.gradients import norms

GROUPS, ELEMENTS, MATRIX = (3,), (6,), (2, 3)


class Direct:
    """One strategy and its memory.

    Args:
        lead: how many runs stand side by side, as leading dimensions.

    Attributes:
        shape: of what each step takes: ``(…, groups)``, ``(…, elements)`` or
            ``(…, rows, columns)``.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        lead: tuple[int, ...] = (),
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self.strategy, self.seed, self.dtype, self.device = strategy, seed, dtype, device
        own: tuple[int, ...] = GROUPS
        if isinstance(strategy, Transform):
            own = MATRIX if strategy.view == "matrix" else ELEMENTS
        self._dims = len(own)
        self.shape = (*lead, *own)
        self.weight = norms(-1, own, seed, dtype).to(device).expand(self.shape)
        self.size = torch.full(own, 10.0, dtype=dtype, device=device).expand(self.shape)
        self.memory: Memory = strategy.remember(torch.zeros(self.shape, dtype=dtype, device=device))
        self.count = 0

    def numbers(self, step: int) -> Tensor:
        """What the step takes; spikes now and then. Elements have both signs."""
        found = norms(step, self.shape, self.seed, self.dtype).to(self.device)
        if isinstance(self.strategy, Transform):
            found = found * torch.where(found.frac() > 0.5, 1.0, -1.0).to(found)
        return found

    def finite(self, given: Tensor) -> Tensor:
        """Which groups may enter memory: none of a run whose step is not finite."""
        whole = torch.isfinite(given).all(dim=-1, keepdim=True)
        if self._dims == 2:
            whole = whole.all(dim=-2, keepdim=True)
        return whole if isinstance(self.strategy, Transform) else whole.expand_as(given)

    def step(self, given: Tensor, valid: Tensor | None = None) -> Tensor:
        """The norms after clipping, or the elements after the transform."""
        left, self.memory = ask(
            self.strategy, given, self.weight, self.size, self.memory, self.count, valid
        )
        self.count += 1
        return left


def ask(
    strategy: Strategy,
    given: Tensor,
    weight: Tensor,
    size: Tensor,
    memory: Memory,
    step: int,
    valid: Tensor | None = None,
) -> tuple[Tensor, Memory]:
    """One step of a strategy: what is left, and the memory after it."""
    if isinstance(strategy, Transform):
        elements = Elements(given, step=step, weight=weight, grad=given, lr=0.1)
        return transformed(strategy, elements, memory, valid)
    seen = Seen(
        given, step=step, weight_norm=weight, size=size, lr=0.1, weight_decay=0.01, valid=valid,
        total_steps=100,
    )  # fmt: skip
    made = decide(strategy, seen, memory)
    return made.clipped_norm, remember_step(strategy, seen, made.clipped_norm, memory, valid)
