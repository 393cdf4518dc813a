"""Disturbances that a run can be asked for: wrong labels, heavy-tailed noise, spikes.

All are drawn on the CPU from seeds of their own, so that every strategy with the same seed meets
the same ones at the same steps: comparisons stay paired.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gclip.training.seeds import generator

SPIKE = 1000.0
"""How many times too large the gradients of a spike are."""


def wrong_labels(labels: Tensor, share: float, classes: int, seed: int) -> Tensor:
    """Labels of which some, chosen at random, are replaced by another class.

    Args:
        labels: int64 ``(N,)``.
        share: how many are replaced, in [0, 1).
        classes: how many classes there are.
        seed: of the run.
    """
    if not share:
        return labels
    draws = generator(seed, "labels")
    chosen = torch.rand(len(labels), generator=draws) < share
    other = torch.randint(1, classes, (len(labels),), generator=draws)
    wrong = (labels.cpu() + other) % classes
    return torch.where(chosen, wrong, labels.cpu()).to(labels.device)


class Disturbance:
    """Noise and spikes on the gradients of one run, after ``backward()`` and before clipping.

    Args:
        noise: added to each element: `noise` times the tensor's root mean square times a draw of
            Student's t with 2 degrees of freedom, whose variance is infinite.
        spikes: the chance of a step whose gradients are `SPIKE` times too large.
        seed: of the run.
        player: whose gradients they are, where a run has several: each has draws of its own.
    """

    def __init__(self, noise: float, spikes: float, seed: int, player: str = "") -> None:
        self._noise, self._spikes = noise, spikes
        self.generator = generator(seed, f"noise/{player}" if player else "noise")

    def __bool__(self) -> bool:
        return bool(self._noise or self._spikes)

    @torch.no_grad()
    def apply(self, parameters: Sequence[Tensor]) -> None:
        """Disturb the gradients of `parameters` in place."""
        grads = [p.grad for p in parameters if p.grad is not None]
        if self._noise:
            for grad in grads:
                size = grad.float().square().mean().sqrt()
                grad.add_((self._draw(grad.shape).to(grad.device) * size * self._noise).to(grad))
        if self._spikes and float(torch.rand((), generator=self.generator)) < self._spikes:
            torch._foreach_mul_(grads, SPIKE)

    def _draw(self, shape: torch.Size) -> Tensor:
        """Student's t with 2 degrees of freedom: a normal over the root of an exponential."""
        normal = torch.randn(shape, generator=self.generator)
        tail = torch.empty(shape).exponential_(generator=self.generator)
        return normal / tail.sqrt()
