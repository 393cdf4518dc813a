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
        shape: tuple[int, ...] = GROUPS
        if isinstance(strategy, Transform):
            shape = MATRIX if strategy.view == "matrix" else ELEMENTS
        self._dims = len(shape)
        self.shape = (*lead, *shape)
        self.weight = norms(-1, shape, seed, dtype).to(device).expand(self.shape)
        self.size = torch.full(shape, 10.0, dtype=dtype, device=device).expand(self.shape)
        self.memory: Memory = strategy.remember(torch.zeros(self.shape, dtype=dtype, device=device))
        self.count = 0

    def numbers(self, step: int) -> Tensor:
        """What the step takes; spikes now and then. Elements have both signs."""
        numbers = norms(step, self.shape, self.seed, self.dtype).to(self.device)
        if isinstance(self.strategy, Transform):
            numbers = numbers * torch.where(numbers.frac() > 0.5, 1.0, -1.0).to(numbers)
        return numbers

    def finite(self, inputs: Tensor) -> Tensor:
        """Which groups may enter memory: none of a run whose step is not finite."""
        finite = torch.isfinite(inputs).all(dim=-1, keepdim=True)
        if self._dims == 2:
            finite = finite.all(dim=-2, keepdim=True)
        return finite if isinstance(self.strategy, Transform) else finite.expand_as(inputs)

    def step(self, inputs: Tensor, valid: Tensor | None = None) -> Tensor:
        """The norms after clipping, or the elements after the transform."""
        outputs, self.memory = ask(
            self.strategy, inputs, self.weight, self.size, self.memory, self.count, valid
        )
        self.count += 1
        return outputs


def ask(
    strategy: Strategy,
    inputs: Tensor,
    weight: Tensor,
    size: Tensor,
    memory: Memory,
    step: int,
    valid: Tensor | None = None,
) -> tuple[Tensor, Memory]:
    """One step of a strategy: what is left, and the memory after it."""
    if isinstance(strategy, Transform):
        elements = Elements(inputs, step=step, weight=weight, grad=inputs, lr=0.1)
        return transformed(strategy, elements, memory, valid)
    seen = Seen(
        inputs, step=step, weight_norm=weight, size=size, lr=0.1, weight_decay=0.01, valid=valid,
        total_steps=100,
    )  # fmt: skip
    decision = decide(strategy, seen, memory)
    return decision.clipped_norm, remember_step(
        strategy, seen, decision.clipped_norm, memory, valid
    )
