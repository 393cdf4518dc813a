"""Is a run still going somewhere? Losses and gradients are watched without waiting for a GPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PATIENCE = 20  # steps in a row whose gradients are not finite, until the run counts as diverged
_GPU_STEPS = 64  # steps between two looks at the values on a GPU; a CPU looks at every one


class Watch:
    """The losses of a run's steps, and the step at which it diverged.

    Attributes:
        losses: one number a step, of the steps that have been looked at.
        diverged_at: the number of whole steps before the first whose loss was not finite, or
            before the end of `PATIENCE` steps in a row without finite gradients; None while all
            is well. It does not depend on how often one looks.
        reason: what happened then, in words.
    """

    def __init__(self, device: torch.device) -> None:
        self.losses: list[float] = []
        self.diverged_at: int | None = None
        self.reason = ""
        self.broken = 0  # steps in a row without finite gradients, up to now
        self._every = 1 if device.type == "cpu" else _GPU_STEPS
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def note(self, loss: Tensor, finite: Tensor) -> bool:
        """Note a step's mean loss, shape (), and whether its gradients were finite, (1,).

        Returns:
            False once the run is known to have diverged.
        """
        self._waiting.append((loss, finite))
        return len(self._waiting) < self._every or self.look()

    def look(self) -> bool:
        """Look at what was noted since the last time; False if the run has diverged."""
        if not self._waiting:
            return self.diverged_at is None
        if self._every == 1:
            seen = [(float(loss), bool(finite)) for loss, finite in self._waiting]
        else:
            losses = torch.stack([loss for loss, _ in self._waiting]).double()
            finites = torch.cat([finite for _, finite in self._waiting]).to(losses.device)
            values, oks = torch.stack([losses, finites.double()]).tolist()
            seen = [(value, ok > 0) for value, ok in zip(values, oks, strict=True)]
        self._waiting.clear()
        for loss, finite in seen:
            if self.diverged_at is None:
                self._judge(loss, finite)
        return self.diverged_at is None

    def _judge(self, loss: float, finite: bool) -> None:
        step = len(self.losses)
        if not math.isfinite(loss):
            self.diverged_at = step
            self.reason = f"the training loss was not finite at step {step}"
            return
        self.losses.append(loss)
        self.broken = 0 if finite else self.broken + 1
        if self.broken >= PATIENCE:
            self.diverged_at = step + 1
            self.reason = f"gradients were not finite in {PATIENCE} steps up to step {step}"
