"""What came of a run: `RunResult`, which says everything that tables and figures ask for."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gclip.clipping.layer_record import PREFIX, LayerRecord
from gclip.clipping.record import ClipSummary
from gclip.clipping.verdicts import MOSTLY_SKIPPED
from gclip.errors import UsageError, choose
from gclip.training.config import RunConfig
from gclip.training.metric import ACCURACY, Metric

Status = Literal["finished", "diverged", "pruned", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResult:
    """The outcome of one run.

    Attributes:
        config: what was run.
        status: ``finished``; ``diverged`` (see `gclip.training.train`); ``pruned`` (stopped by the
            caller); ``failed`` (an error, told in `message`).
        stopped_at: the number of optimizer steps done by then, None for a finished run.
        message: why it stopped; of a finished run what its reader must know, "" as a rule.
        metric: what the run is measured by; accuracy unless its problem says otherwise.
        scores: all that the problem measured on ``config.split``, by name. A diverged run's metric
            has its worst value.
        accuracy: share of right answers on ``config.split``. A diverged run scores chance,
            1 / classes; a failed one NaN, and so does one whose metric is another.
        chance: the accuracy of guessing, 1 / classes; NaN where it was not recorded, or where the
            metric is another.
        loss: mean loss on ``config.split``; inf for a diverged run, NaN where it was not measured.
        train_loss: mean training loss of the last epoch's steps.
        curve: one dict an epoch: epoch (from 1), step, train_loss, accuracy, loss, seconds.
        clipping: what clipping did: the record's summary.
        seconds: of wall clock, over all the pieces of a resumed run.
        steps: arrays of one entry per optimizer step: ``loss``, ``lr``, and the record's.
        layers: the norm of each layer's gradient over time, where ``config.watch`` asks for it.
        environment: the machine and versions.
    """

    config: RunConfig
    status: Status = "finished"
    stopped_at: int | None = None
    message: str = ""
    metric: Metric = ACCURACY
    scores: dict[str, float] = field(default_factory=dict)
    accuracy: float = math.nan
    chance: float = math.nan
    loss: float = math.nan
    train_loss: float = math.nan
    curve: list[dict[str, Any]] = field(default_factory=list)
    clipping: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    steps: dict[str, Array] = field(default_factory=dict)
    layers: LayerRecord | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.metric.name != ACCURACY.name:
            return
        known = not math.isnan(self.chance)
        worst = self.chance if known else self.metric.worst
        object.__setattr__(self, "metric", dataclasses.replace(ACCURACY, worst=worst))

    @property
    def score(self) -> float:
        """The value of `metric`; NaN for a failed run."""
        if self.metric.name == ACCURACY.name:
            return self.accuracy
        return self.scores.get(self.metric.name, math.nan)

    @classmethod
    def failed(cls, config: RunConfig, message: str) -> RunResult:
        """The result of a run that an error ended before it had one."""
        return cls(config=config, status="failed", message=message)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON would have it, but `steps`, which stay arrays.

        Those of `layers` are among them, as ``layers/before`` …; their names are ``layers``.
        What JSON has no number for becomes "nan", "inf" and "-inf", which ``float`` reads.
        """
        other = self.metric.name != ACCURACY.name
        measured: dict[str, Any] = {"metric": self.metric.to_dict()} if other else {}
        if self.scores:
            measured["scores"] = _plain(self.scores)
        arrays: dict[str, Array] = {}
        if self.layers is not None:
            arrays = self.layers.arrays()
            measured["layers"] = list(self.layers.names)
            if any(self.layers.players):
                measured["layer_players"] = list(self.layers.players)
        return {
            "config": json.loads(self.config.to_json()),
            "status": self.status,
            "stopped_at": self.stopped_at,
            "message": self.message,
            **measured,
            "accuracy": _plain(self.accuracy),
            "chance": _plain(self.chance),
            "loss": _plain(self.loss),
            "train_loss": _plain(self.train_loss),
            "curve": _plain(self.curve),
            "clipping": _plain(self.clipping),
            "seconds": self.seconds,
            "steps": {**self.steps, **arrays},
            "environment": self.environment,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunResult:
        """Read what `to_dict` wrote.

        Raises:
            UsageError: it is not that.
        """
        try:
            config, status = values["config"], values["status"]
            rest: dict[str, Any] = {
                name: float(values[name])
                for name in ("accuracy", "chance", "loss", "train_loss", "seconds")
                if values.get(name) is not None
            }
            rest |= {
                name: values[name]
                for name in ("stopped_at", "message", "environment")
                if name in values
            }
            if values.get("metric"):
                rest["metric"] = Metric.from_dict(values["metric"])
            scores = _number_again(values.get("scores") or {})
            rest["scores"] = {str(name): float(value) for name, value in scores.items()}
            curve = [_number_again(point) for point in values.get("curve") or []]
            clipping = _number_again(values.get("clipping") or {})
            arrays = {n: np.asarray(array) for n, array in (values.get("steps") or {}).items()}
            steps = {n: array for n, array in arrays.items() if not n.startswith(PREFIX)}
            names, owners = values.get("layers"), values.get("layer_players") or ()
            layers = LayerRecord.from_arrays(names, owners, arrays) if names else None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"this is not the result of a run: {error!r}") from error
        choose(status, STATUSES, "status")
        return cls(
            config=RunConfig.of(config),
            status=status,
            curve=curve,
            clipping=clipping,
            steps=steps,
            layers=layers,
            **rest,
        )


def skip_warning(summary: ClipSummary) -> str:
    """What the reader of a finished run must know of its clipping; "" where there is nothing."""
    if summary.verdict != MOSTLY_SKIPPED:
        return ""
    return (
        f"{summary.skipped:,} of {summary.steps:,} steps were skipped, so that the model has "
        "learned from the others alone"
    )


_WORDS = ("nan", "inf", "-inf")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _number_again(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _number_again(each) for key, each in value.items()}
    return float(value) if value in _WORDS else value
