"""What happened to one run, step by step and epoch by epoch, and the result that it makes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gclip.clipping.layer_norms import LayerNorms
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
        metric: what it is measured by; a diverged run scores the worst.
        epoch_steps: optimizer steps an epoch; None where nobody knows.
        device: where losses come from: a GPU is not waited for.

    Attributes:
        curve: one dict an epoch, as in `RunResult`.
        monitor: the losses, and the step at which the run diverged.
    """

    def __init__(
        self,
        config: RunConfig,
        rates: list[float],
        metric: Metric,
        epoch_steps: int | None,
        device: torch.device,
    ) -> None:
        self.config, self.rates, self.metric = config, rates, metric
        self.curve: list[dict[str, Any]] = []
        self.monitor = DivergenceMonitor(device)
        self._epoch_steps = epoch_steps

    @property
    def loss(self) -> float | None:
        """The training loss of the latest step looked at; None before the first."""
        return self.monitor.losses[-1] if self.monitor.losses else None

    @property
    def score(self) -> float | None:
        """The metric at the latest evaluation; None before the first epoch's end."""
        return None if not self.curve else float(self.curve[-1][self._column])

    @property
    def accuracy(self) -> float | None:
        """Of the latest evaluation; None before the first, or where the metric is another."""
        return self.score if self.metric.name == ACCURACY.name else None

    def add_evaluation(self, step: int, score: float, loss: float, seconds: float) -> None:
        """Put an epoch's end on the curve; a loss that is not finite is a divergence.

        Args:
            step: optimizer steps done.
            score: the metric on ``config.split``.
            loss: and the mean loss.
            seconds: of wall clock, since the run began.
        """
        if math.isfinite(loss) and math.isfinite(score):
            self._add_point(self._epoch_at(step), step, score, loss, seconds)
        else:
            what = "loss" if not math.isfinite(loss) else self.metric.name
            reason = f"the {what} on {self.config.split} was not finite at step {step}"
            self.monitor.mark_diverged(step, reason)

    def add_scores(
        self, epoch: int, step: int, scores: Mapping[str, float], seconds: float
    ) -> None:
        """Put an epoch's end on the curve, with all that the problem measured.

        A metric or a loss that is not finite is a divergence.

        Args:
            epoch: from 1.
            step: optimizer steps done.
            scores: by name, the metric's among them.
            seconds: of wall clock, since the run began.
        """
        for what in (self.metric.name, "loss"):
            if not math.isfinite(scores.get(what, 0.0)):
                reason = f"the {what} on {self.config.split} was not finite at step {step}"
                self.monitor.mark_diverged(step, reason)
                return
        loss = scores.get("loss", math.nan)
        self._add_point(epoch, step, scores[self.metric.name], loss, seconds, scores)

    def end_diverged(self, seconds: float, epoch: int | None = None) -> int:
        """End the curve of a diverged run at the worst score; the number of steps that it made.

        Args:
            seconds: of wall clock, since the run began.
            epoch: in which it diverged, from 1, where it does not follow from the steps.
        """
        step = self.monitor.diverged_at or 0
        at = self._epoch_at(step) if epoch is None else epoch
        self._add_point(at, step, self.metric.worst, math.inf, seconds)
        return step

    def now(self, epoch: int, step: int) -> dict[str, Any]:
        """What a `gclip.training.Progress` says of the run after `epoch` epochs and `step` steps:
        the latest of everything."""
        return {
            "epoch": epoch,
            "step": step,
            "loss": self.loss,
            "accuracy": self.accuracy,
            "score": self.score,
        }

    def then(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """What it said at a point of the curve."""
        score, step = float(point[self._column]), int(point["step"])
        return {
            "epoch": point["epoch"],
            "step": step,
            "loss": self.monitor.losses[step - 1] if step else None,
            "accuracy": score if self.metric.name == ACCURACY.name else None,
            "score": score,
        }

    @property
    def _column(self) -> str:
        """What the curve calls the metric."""
        return "accuracy" if self.metric.name == ACCURACY.name else "score"

    def _epoch_at(self, step: int) -> int:
        """The epoch that `step` is of, from 1; at an epoch's end still that one."""
        return max(1, math.ceil(step / (self._epoch_steps or step or 1)))

    def result(
        self,
        status: Status,
        message: str,
        *,
        step: int,
        record: Record,
        seconds: float,
        environment: Mapping[str, Any],
        players: Mapping[str, Any] | None = None,
        layers: LayerNorms | None = None,
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
            players: of `PlayerRecords.players`, where a run has several.
            layers: the norms of its layers, where it was watched.
        """
        own = record.first(step)
        steps = {
            "loss": np.array(self.monitor.losses, dtype=np.float32),
            "lr": np.array(self.rates, dtype=np.float32),
            **own.arrays(),
        }
        last, summary = self.curve[-1], own.summary()
        clipping = summary.as_dict()
        if players is not None:
            steps["player"] = players["of_step"]
            clipping["players"] = players["summaries"]
        is_accuracy = self.metric.name == ACCURACY.name
        known = ("epoch", "step", "train_loss", "seconds", "score", *(["loss"] * is_accuracy))
        scores = {name: value for name, value in last.items() if name not in known}
        if not is_accuracy:
            scores[self.metric.name] = last["score"]
            if math.isnan(last["loss"]):
                del scores["loss"]
        return RunResult(
            config=self.config,
            status=status,
            stopped_at=None if status == "finished" else step,
            message=message or skip_warning(summary),
            metric=self.metric,
            scores=scores if scores.keys() - {"accuracy"} else {},
            accuracy=last["accuracy"] if is_accuracy else math.nan,
            chance=self.metric.worst if is_accuracy else math.nan,
            loss=last["loss"],
            train_loss=last["train_loss"],
            curve=self.curve,
            clipping=clipping,
            seconds=seconds,
            steps={name: values[:step] for name, values in steps.items()},
            layers=None if layers is None else layers.record(step),
            environment=dict(environment),
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.monitor.load_state_dict(state)
        self.curve = list(state["curve"])

    def state_dict(self) -> dict[str, Any]:
        """The curve, and the monitor's state."""
        return {**self.monitor.state_dict(), "curve": self.curve}

    def _add_point(
        self,
        epoch: int,
        step: int,
        score: float,
        loss: float,
        seconds: float,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        since = self.curve[-1]["step"] if self.curve else 0
        losses = self.monitor.losses[since:step]
        self.curve.append(
            {
                "epoch": epoch,
                "step": step,
                "train_loss": float(np.mean(losses)) if losses else math.nan,
                self._column: score,
                "loss": loss,
                "seconds": seconds,
                **{n: v for n, v in (scores or {}).items() if n not in (self.metric.name, "loss")},
            }
        )
