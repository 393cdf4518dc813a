"""What is particular to one run of a fleet: its losses, its curve, how it ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gclip.clipping.record import Record
from gclip.training.config import RunConfig
from gclip.training.divergence import DivergenceMonitor
from gclip.training.result import RunResult, Status, skip_warning


class Member:
    """One run's part of a fleet.

    Args:
        rates: the learning rate of each step.
        chance: the accuracy of a diverged run.
        epoch_steps: optimizer steps an epoch.

    Attributes:
        curve: one dict an epoch, as in `RunResult`.
        ended: the status with which it left; None while it is trained.
        message: why it ended.
        step: optimizer steps done; those after a divergence do not count.
    """

    def __init__(
        self, config: RunConfig, rates: list[float], chance: float, epoch_steps: int
    ) -> None:
        self.config, self.rates = config, rates
        self.curve: list[dict[str, Any]] = []
        self.ended: Status | None = None
        self.message = ""
        self.step = 0
        self._watch = DivergenceMonitor(torch.device("cpu"))
        self._chance, self._epoch_steps = chance, epoch_steps

    @property
    def diverged_at(self) -> int | None:
        """The step at which it diverged."""
        return self._watch.diverged_at

    @property
    def loss(self) -> float | None:
        """The training loss of its last step."""
        return self._watch.losses[-1] if self._watch.losses else None

    def note(self, loss: float, finite: bool) -> None:
        """Note a step; the first ones after a divergence are the fleet's, not its own."""
        if self._watch.diverged_at is None:
            self._watch._judge(loss, finite)
            self.step += 1

    def measured(self, accuracy: float, loss: float, seconds: float) -> None:
        """Put an epoch's end on the curve."""
        if math.isfinite(loss):
            self._put(accuracy, loss, seconds)
        else:
            self._watch.diverged_at = self.step
            self._watch.reason = (
                f"the loss on {self.config.split} was not finite at step {self.step}"
            )

    def diverge(self, seconds: float) -> None:
        """End the curve at chance."""
        self.step = self._watch.diverged_at or 0
        self._put(self._chance, math.inf, seconds)
        self.end("diverged", self._watch.reason)

    def end(self, status: Status, message: str) -> None:
        """Leave the fleet."""
        self.ended, self.message = status, message

    def result(self, kept: Record, *, seconds: float, environment: Mapping[str, Any]) -> RunResult:
        """What came of it; `kept` is what its clipper recorded."""
        record = Record()
        record.load_state_dict({"rows": kept.state_dict()["rows"][: self.step]})
        steps = {
            "loss": np.array(self._watch.losses, dtype=np.float32),
            "lr": np.array(self.rates, dtype=np.float32),
            **record.arrays(),
        }
        last, summary = self.curve[-1], record.summary()
        return RunResult(
            config=self.config,
            status=self.ended or "finished",
            stopped_at=None if self.ended == "finished" else self.step,
            message=self.message or skip_warning(summary),
            accuracy=last["accuracy"],
            chance=self._chance,
            loss=last["loss"],
            train_loss=last["train_loss"],
            curve=self.curve,
            clipping=summary.as_dict(),
            seconds=seconds,
            steps={name: values[: self.step] for name, values in steps.items()},
            environment=dict(environment),
        )

    def _put(self, accuracy: float, loss: float, seconds: float) -> None:
        since = self.curve[-1]["step"] if self.curve else 0
        own = self._watch.losses[since : self.step]
        self.curve.append(
            {
                "epoch": max(1, math.ceil(self.step / self._epoch_steps)),
                "step": self.step,
                "train_loss": float(np.mean(own)) if own else math.nan,
                "accuracy": accuracy,
                "loss": loss,
                "seconds": seconds,
            }
        )
