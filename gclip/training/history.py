"""What happened to one run, step by step and epoch by epoch, and the result that it makes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gclip.clipping.record import Record
from gclip.training.config import RunConfig
from gclip.training.divergence import DivergenceMonitor
from gclip.training.metric import ACCURACY, Metric
from gclip.training.result import RunResult, Status, skip_warning


class RunHistory:
    """One run's losses, learning curve and divergence.

    Args:
        config: of the run.
        rates: the learning rate of each of its steps.
        chance: the accuracy of guessing, which a diverged run scores.
        epoch_steps: optimizer steps an epoch.
        device: where losses come from: a GPU is not waited for.

    Attributes:
        curve: one dict an epoch, as in `RunResult`.
        monitor: the losses, and the step at which the run diverged.
    """

    def __init__(
        self,
        config: RunConfig,
        rates: list[float],
        chance: float,
        epoch_steps: int,
        device: torch.device,
    ) -> None:
        self.config, self.rates = config, rates
        self.curve: list[dict[str, Any]] = []
        self.monitor = DivergenceMonitor(device)
        self._chance, self._epoch_steps = chance, epoch_steps

    @property
    def loss(self) -> float | None:
        """The training loss of the latest step looked at; None before the first."""
        return self.monitor.losses[-1] if self.monitor.losses else None

    @property
    def accuracy(self) -> float | None:
        """Of the latest evaluation; None before the first epoch's end."""
        accuracy: float | None = self.curve[-1].get("accuracy") if self.curve else None
        return accuracy

    @property
    def score(self) -> float | None:
        """The metric's value of the latest evaluation; None before the first epoch's end."""
        if not self.curve:
            return None
        score: float | None = self.curve[-1].get("score", self.curve[-1].get("accuracy"))
        return score

    @property
    def metric(self) -> Metric:
        """What the run is measured by."""
        return dataclasses.replace(ACCURACY, worst=self._chance)

    def add_evaluation(self, step: int, accuracy: float, loss: float, seconds: float) -> None:
        """Put an epoch's end on the curve; a loss that is not finite is a divergence.

        Args:
            step: optimizer steps done.
            accuracy, loss: on ``config.split``.
            seconds: of wall clock, since the run began.
        """
        if math.isfinite(loss):
            self._add_point(step, accuracy, loss, seconds)
        else:
            split = self.config.split
            reason = f"the loss on {split} was not finite at step {step}"
            self.monitor.mark_diverged(step, reason)

    def end_diverged(self, seconds: float) -> int:
        """End the curve of a diverged run at chance; the number of steps that it made."""
        step = self.monitor.diverged_at or 0
        self._add_point(step, self._chance, math.inf, seconds)
        return step

    def epoch_at(self, step: int) -> int:
        """The epoch that `step` is of, from 1; at an epoch's end still that one."""
        return max(1, math.ceil(step / self._epoch_steps))

    def result(
        self,
        status: Status,
        message: str,
        *,
        step: int,
        record: Record,
        seconds: float,
        environment: Mapping[str, Any],
    ) -> RunResult:
        """What came of the run.

        Args:
            status: how it ended.
            message: why it stopped, "" where it finished.
            step: optimizer steps done. A divergence shows in a loss after its step, on a GPU many
                steps after: what was recorded from then on is not the run's.
            record: what clipping did.
            seconds: of wall clock.
            environment: the machine and versions.
        """
        own = Record()
        own.load_state_dict({"rows": record.state_dict()["rows"][:step]})
        steps = {
            "loss": np.array(self.monitor.losses, dtype=np.float32),
            "lr": np.array(self.rates, dtype=np.float32),
            **own.arrays(),
        }
        last, summary = self.curve[-1], own.summary()
        return RunResult(
            config=self.config,
            status=status,
            stopped_at=None if status == "finished" else step,
            message=message or skip_warning(summary),
            accuracy=last["accuracy"],
            chance=self._chance,
            loss=last["loss"],
            train_loss=last["train_loss"],
            curve=self.curve,
            clipping=summary.as_dict(),
            seconds=seconds,
            steps={name: values[:step] for name, values in steps.items()},
            environment=dict(environment),
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.monitor.load_state_dict(state)
        self.curve = list(state["curve"])

    def state_dict(self) -> dict[str, Any]:
        """The curve, and the monitor's state."""
        return {**self.monitor.state_dict(), "curve": self.curve}

    def _add_point(self, step: int, accuracy: float, loss: float, seconds: float) -> None:
        since = self.curve[-1]["step"] if self.curve else 0
        losses = self.monitor.losses[since:step]
        self.curve.append(
            {
                "epoch": self.epoch_at(step),
                "step": step,
                "train_loss": float(np.mean(losses)) if losses else math.nan,
                "accuracy": accuracy,
                "loss": loss,
                "seconds": seconds,
            }
        )
