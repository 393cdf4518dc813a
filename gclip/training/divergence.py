"""Is a run still going somewhere? Losses and gradients are watched without waiting for a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gclip.clipping.async_copy import AsyncCopy

PATIENCE = 20  # steps in a row whose gradients are not finite, until the run counts as diverged
_GPU_STEPS = 64  # steps whose values a GPU sends together; a CPU looks at every one


class DivergenceMonitor:
    """The losses of a run's steps, and the step at which it diverged.

    Attributes:
        losses: one number a step, of the steps that have been looked at.
        diverged_at: the number of whole steps before the first whose loss was not finite, or
            before the end of `PATIENCE` steps in a row without finite gradients; None while all
            is well. It does not depend on how often one looks.
        reason: what happened then, in words.
        player_of: the player whose loss a step's was, by the step's number; None where there is
            one player.
    """

    def __init__(self, device: torch.device) -> None:
        self.losses: list[float] = []
        self.diverged_at: int | None = None
        self.reason = ""
        self.player_of: Callable[[int], str] | None = None
        self._nonfinite_steps = 0  # steps in a row without finite gradients, up to now
        self._every = 1 if device.type == "cpu" else _GPU_STEPS
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._sent: AsyncCopy | None = None
        self._in_step = False

    def in_step_with_others(self) -> None:
        """Several processes note the same values: let all see them at the same step, whichever
        of their GPUs is the faster."""
        self._in_step = True

    def note(self, loss: Tensor, finite: Tensor) -> bool:
        """Note a step's mean loss, shape (), and whether its gradients were finite, (1,).

        Returns:
            False once the run is known to have diverged. On a GPU that is some steps later:
            values are sent while training goes on, and seen when they have come.
        """
        self._waiting.append((loss, finite))
        if self._every == 1:
            return self.look()
        if self._in_step and len(self._waiting) >= self._every:
            self._receive()
        if self._sent is None and len(self._waiting) >= self._every:
            self._send()
        if self._sent is not None and not self._in_step and self._sent.ready:
            self._receive()
        return self.diverged_at is None

    def look(self) -> bool:
        """Look at all that was noted; False if the run has diverged."""
        if self._every == 1:
            for loss, finite in self._waiting:
                self.add(float(loss), bool(finite))
            self._waiting.clear()
        else:
            self._receive()
            self._send()
            self._receive()
        return self.diverged_at is None

    def add(self, loss: float, finite: bool) -> None:
        """Note a step as numbers; after a divergence nothing more is noted."""
        if self.diverged_at is not None:
            return
        step = len(self.losses)
        if not math.isfinite(loss):
            whose = "" if self.player_of is None else f" of {self.player_of(step)}"
            self.mark_diverged(step, f"the training loss{whose} was not finite at step {step}")
            return
        self.losses.append(loss)
        self._nonfinite_steps = 0 if finite else self._nonfinite_steps + 1
        if self._nonfinite_steps >= PATIENCE:
            self.mark_diverged(
                step + 1, f"gradients were not finite in {PATIENCE} steps up to step {step}"
            )

    def mark_diverged(self, step: int, reason: str) -> None:
        """The run diverged after `step` whole steps, unless it had before."""
        if self.diverged_at is None:
            self.diverged_at, self.reason = step, reason

    def state_dict(self) -> dict[str, Any]:
        """The losses, and the steps in a row without finite gradients."""
        return {"losses": list(self.losses), "broken": self._nonfinite_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.losses, self._nonfinite_steps = list(state["losses"]), state["broken"]

    def _send(self) -> None:
        if self._waiting:
            losses = torch.stack([loss for loss, _ in self._waiting]).float()
            finites = torch.cat([finite for _, finite in self._waiting]).to(losses.device)
            self._sent = AsyncCopy(torch.stack([losses, finites.float()]))
            self._waiting.clear()

    def _receive(self) -> None:
        if self._sent is not None:
            for loss, finite in zip(*self._sent.values(), strict=True):
                self.add(loss, finite > 0)
            self._sent = None
