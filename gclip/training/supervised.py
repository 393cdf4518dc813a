"""Problems of a data set and a loss: `Supervised` gives a problem everything but the data.

Such a problem trains by the fast path: the data is one tensor on the device, runs of one shape
train as one program (fleets), and a GPU replays a graph.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.errors import UsageError
from gclip.training import models
from gclip.training.dataset import Dataset
from gclip.training.device import lay_out, memory_format
from gclip.training.metric import ACCURACY, Metric, accuracy
from gclip.training.problem import Losses, Problem, Source

if TYPE_CHECKING:
    from gclip.training.config import RunConfig
    from gclip.training.run_state import RunState

Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True, kw_only=True)
class Supervised(Problem):
    """Base class of problems that learn targets from inputs: write `data`.

    The network is ``config.model``, made for the data's shapes. Classes are learned by
    cross-entropy and measured by accuracy; numbers by the mean squared error, and then the class
    says what they are measured by (`metric`). Override `loss` and `score` for others.
    """

    metric: ClassVar[Metric] = ACCURACY
    own_models: ClassVar[bool] = False

    @abstractmethod
    def data(self, source: Source) -> Dataset | tuple[Any, Any, Any, Any]:
        """A `gclip.training.Dataset`, or the tensors it is made from: inputs and targets to learn
        from, inputs and targets to be tested on (``Dataset.from_tensors``)."""

    def loss(self, outputs: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """What is minimised.

        Args:
            outputs: of the network, float32 ``(batch, outputs)``.
            targets: int64 ``(batch,)`` for classes, float32 ``(batch,)`` or ``(batch, k)``.
            reduction: ``mean`` or ``sum`` over the batch, ``()``; ``none`` for each example,
                ``(batch,)``.
        """
        if not targets.is_floating_point():
            return F.cross_entropy(outputs, targets, reduction=reduction)
        errors = (outputs.reshape(targets.shape) - targets).square()
        each = errors.flatten(1).mean(1) if errors.dim() > 1 else errors
        if reduction == "none":
            return each
        return each.mean() if reduction == "mean" else each.sum()

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The metric of each example, ``(batch,)``; its mean over the split is the metric's value.

        Args:
            outputs: of the network, float32 ``(batch, outputs)``.
            targets: as in `loss`.
        """
        if targets.is_floating_point():
            return self.loss(outputs, targets, reduction="none")
        return outputs.argmax(-1) == targets

    def players(self, config: RunConfig) -> Mapping[str, nn.Module] | nn.Module:
        """Not asked: the network follows from ``config.model`` and the data. Override it for a
        network of your own; `gclip.register_model` is the faster way."""
        raise UsageError("must be written where it is called")

    def as_dataset(self, value: Any) -> Dataset:
        """What `data` gave, as a data set.

        Raises:
            UsageError: it is neither a data set nor four tensors.
        """
        if isinstance(value, Dataset):
            return value.named(str(self))
        if isinstance(value, list | tuple) and len(value) == 4:
            return Dataset.from_tensors(*value, name=str(self))
        raise UsageError(
            f"problem {self.name}: data must return a gclip.training.Dataset or four tensors "
            "(inputs and targets to learn from, inputs and targets to be tested on), but got "
            f"{type(value).__name__}"
        )

    def metric_of(self, data: Any) -> Metric:
        """Accuracy with that of guessing as the worst, where the metric is accuracy."""
        if self.metric.name != ACCURACY.name:
            return self.metric
        return accuracy(len(cast(Dataset, data).classes) or 1)

    def build_players(self, state: RunState) -> Mapping[str, nn.Module] | nn.Module:
        """The network of a run."""
        if type(self).players is not Supervised.players:
            return self.players(state.config)
        config, data = state.config, cast(Dataset, state.data)
        net = models.build(config.model, data.inputs, data.outputs, config.seed, config.dropout)
        return lay_out(net, memory_format(state.device, config.precision))

    def check_config(self, config: RunConfig) -> None:
        """All settings of the trainer make sense; what the data refuses is said with the data.

        Raises:
            UsageError: ``accumulate``, of a class that makes batches or losses of its own.
        """
        if config.accumulate != 1 and not has_fast_path(self):
            raise UsageError(
                f"accumulate={config.accumulate} makes no sense for task {self.name}, whose own "
                "batches or losses make one step of each batch; take a larger batch_size"
            )

    # -- for classes that override a part of the general path -----------------------------------

    def setup(self, state: RunState) -> None:
        """Choose the examples to learn from and to measure on."""
        from gclip.training.supervised_batches import SupervisedBatches

        state.cache["supervised"] = SupervisedBatches(state)

    def batches_per_epoch(self, state: RunState) -> int | None:
        """Of ``config.batch_size`` examples each; the last may be smaller."""
        return cast(int, state.cache["supervised"].count)

    def batches(self, state: RunState, epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Inputs and targets in the run's order."""
        return cast("Iterable[tuple[Tensor, Tensor]]", state.cache["supervised"].draw())

    def losses(self, players: Mapping[str, nn.Module], batch: Any) -> Losses:
        """The mean loss of the batch."""
        inputs, targets = batch
        yield "model", self.loss(players["model"](inputs).float(), targets)

    def evaluate(
        self, players: Mapping[str, nn.Module], state: RunState, split: str
    ) -> Mapping[str, float]:
        """The metric and the mean loss on the split."""
        found = state.cache["supervised"]
        scores, losses, count = 0.0, 0.0, 0
        for inputs, targets in found.in_order():
            outputs = players["model"](inputs).float()
            scores += float(self.score(outputs, targets).sum(dtype=torch.float64))
            losses += float(self.loss(outputs, targets, reduction="sum"))
            count += len(targets)
        return {self.metric.name: scores / count, "loss": losses / count}


_GENERAL = ("players", "setup", "batches_per_epoch", "batches", "losses", "evaluate")


def has_fast_path(problem: Problem) -> bool:
    """Whether a problem trains by the fast path: a `Supervised` whose general path is as it was."""
    cls = type(problem)
    return isinstance(problem, Supervised) and all(
        getattr(cls, name) is getattr(Supervised, name) for name in (*_GENERAL, "build_players")
    )
