"""What is particular to one run of a fleet: its history, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gclip.clipping.record import Record
from gclip.training.config import RunConfig
from gclip.training.history import RunHistory
from gclip.training.metric import Metric
from gclip.training.result import RunResult, Status


class FleetMember:
    """One run's part of a fleet.

    Args:
        config: of the run.
        rates: the learning rate of each step.
        metric: what it is measured by.
        epoch_steps: optimizer steps an epoch.

    Attributes:
        history: its losses and its curve.
        status: the status with which it left; None while it is trained.
        step: optimizer steps done; those after a divergence do not count.
    """

    def __init__(
        self, config: RunConfig, rates: list[float], metric: Metric, epoch_steps: int
    ) -> None:
        # The fleet has waited for its numbers when they come here.
        self.history = RunHistory(config, rates, metric, epoch_steps, torch.device("cpu"))
        self.status: Status | None = None
        self.step = 0
        self._message = ""

    @property
    def diverged_at(self) -> int | None:
        """The step at which it diverged."""
        return self.history.monitor.diverged_at

    def note(self, loss: float, finite: bool) -> None:
        """Note a step; those after a divergence are the fleet's, not its own."""
        if self.diverged_at is None:
            self.history.monitor.add(loss, finite)
            self.step += 1

    def end_diverged(self, seconds: float) -> None:
        """End the curve at the worst score, and leave the fleet."""
        self.step = self.history.end_diverged(seconds)
        self.end("diverged", self.history.monitor.reason)

    def end(self, status: Status, message: str) -> None:
        """Leave the fleet."""
        self.status, self._message = status, message

    def state_dict(self) -> dict[str, Any]:
        """Its history so far, a divergence in the epoch under way among it."""
        monitor = self.history.monitor
        return {
            **self.history.state_dict(),
            "member_step": self.step,
            "diverged_at": monitor.diverged_at,
            "reason": monitor.reason,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.history.load_state_dict(state)
        self.step = state["member_step"]
        if state["diverged_at"] is not None:
            self.history.monitor.mark_diverged(state["diverged_at"], state["reason"])

    def result(
        self, record: Record, *, seconds: float, environment: Mapping[str, Any]
    ) -> RunResult:
        """What came of it; `record` is what its clipper recorded."""
        return self.history.result(
            self.status or "finished",
            self._message,
            step=self.step,
            record=record,
            seconds=seconds,
            environment=environment,
        )
