"""The loop that trains: accumulate gradients, clip, step; the same for one run and for a fleet."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from gclip.training import optimizers
from gclip.training.batches import EVALUATION_BATCH, Epoch, Normalizer, batches
from gclip.training.config import RunConfig
from gclip.training.dataset import Dataset
from gclip.training.device import memory_format
from gclip.training.fits import check_fits
from gclip.training.graphs import ForwardBackward
from gclip.training.supervised import Supervised
from gclip.training.tasks import problem_of

Report = TypeVar("Report")
Batches = Iterator[tuple[Tensor, Tensor]]

_LEAST_EVALUATION_BATCH = 16


def build_optimizer(
    config: RunConfig, parameters: Iterable[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer that `config` asks for, of one run's parameters or of a fleet's stacks."""
    return optimizers.build(
        config.optimizer,
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        settings=config.settings,
        device=device,
    )


class TrainingLoop(ABC, Generic[Report]):
    """What one run and a fleet do alike.

    Attributes:
        model: what is trained.
        problem: whose loss is minimised.
        backward: adds the gradients of a batch.
        epoch: whole epochs done.
        step: optimizer steps done.
        within: those of them that belong to the epoch under way.
        steps: how many there will be in all.
    """

    resumes_within_epochs = True
    """What chance decides about an epoch is drawn at its start, so it can be drawn again."""

    model: nn.Module
    backward: ForwardBackward

    def __init__(self, config: RunConfig, dataset: Dataset, device: torch.device) -> None:
        check_fits(config, dataset)
        self.config, self.device = config, device
        self.problem = cast(Supervised, problem_of(config.task))
        self._data = config.select_from(dataset.to(device))
        self._normalizer = None
        if dataset.is_images:
            _, height, width = dataset.inputs
            mean, std = self._data.mean, self._data.std
            self._normalizer = Normalizer.of(mean, std, (height, width), device)
        self._memory_format = memory_format(device, config.precision)
        self._count = len(self._data.train_labels)
        self._images_per_step = config.batch_size * config.accumulate
        self._epoch_steps = math.ceil(self._count / self._images_per_step)
        self.steps = self._epoch_steps * config.epochs
        self.epoch = self.step = self.within = 0
        self._goes_on_at = 0  # the step within the epoch at which the next one begins

    @property
    def train_examples(self) -> int:
        """How many examples an epoch has."""
        return self._count

    def _begin_epoch(self) -> None:
        self.within, self._goes_on_at = self._goes_on_at, 0

    def _train_steps(self, stream: Batches) -> Iterator[tuple[Tensor, Report]]:
        """Make an epoch's steps that are left; yields each one's loss and what clipping reports
        of it."""
        self.model.train()
        parameters = list(self.model.parameters())
        changing = self.config.schedule != "constant"
        first = self.within * self._images_per_step
        for start in range(first, self._count, self._images_per_step):
            if changing or self.step == 0:  # strategies see the rate of the step that they clip
                self._set_rates(self.step)
            images = min(self._images_per_step, self._count - start)
            loss = self._accumulate(stream, images)
            self._disturb(parameters)
            report = self._clip_and_step()
            for parameter in parameters:
                parameter.grad = None
            self.step += 1
            self.within += 1
            yield loss, report

    def _accumulate(self, stream: Batches, images: int) -> Tensor:
        """Add the gradients of the batches that one step's `images` are in; their mean loss."""
        images_left, losses = images, []
        while images_left:
            inputs, labels = next(stream)
            losses.append(self._add_gradients(inputs, labels, len(inputs) / images))
            images_left -= len(inputs)
        loss: Tensor = losses[0]
        for each in losses[1:]:
            loss = loss + each
        return loss

    def _add_gradients(self, images: Tensor, labels: Tensor, share: float) -> Tensor:
        if share == 1:
            return self.backward(images, labels)
        return self._compute(images, labels, share)

    def _compute(self, images: Tensor, labels: Tensor, share: float = 1) -> Tensor:
        """Add the gradients of a batch; its mean loss, times its share of the step's images."""
        with self._precision():
            logits = self.model(images)
        loss = self._mean_loss(logits, labels)
        if share != 1:
            loss = loss * share
        torch.autograd.backward(loss, torch.ones_like(loss))
        return loss.detach()

    def _train_batches(self, labels: Tensor, epoch: Epoch) -> Batches:
        """What is left of an epoch's batches."""
        return batches(
            self._data.train_images,
            labels,
            self.config.batch_size,
            epoch,
            self._normalizer,
            self._memory_format,
            self.within * self.config.accumulate,
        )

    @torch.inference_mode()
    def _evaluate(self, batch_size: int = EVALUATION_BATCH) -> tuple[Tensor, Tensor]:
        """The mean score on ``config.split`` and the mean loss, float64 on the CPU.

        Args:
            batch_size: in a forward pass, at most.
        """
        images, labels = self._data.test_images, self._data.test_labels
        fitting = EVALUATION_BATCH * 3 * 32 * 32 // images[0].numel()
        batch_size = min(batch_size, max(_LEAST_EVALUATION_BATCH, fitting))
        count = math.ceil(len(labels) / batch_size)
        own = self._measured_batches(count)
        everything = Epoch.in_order(len(labels), self.device)
        part = everything.at(slice(own.start * batch_size, own.stop * batch_size))
        scores: list[Tensor] = []
        losses: list[Tensor] = []
        self.model.eval()
        precision = self._precision()
        for batch, answers in batches(
            images, labels, batch_size, part, self._normalizer, self._memory_format
        ):
            with precision:
                logits = self.model(batch)
            scores.append(self._summed_score(logits, answers))
            losses.append(self._summed_loss(logits, answers))
        # A Mac's GPU has no float64; over one batch of images float32 is exact enough.
        score, loss = (
            self._of_all_batches(each, count).cpu().double().sum(0) for each in (scores, losses)
        )
        return score / len(labels), loss / len(labels)

    def _measured_batches(self, count: int) -> range:
        """Which of the `count` batches of a measurement this process computes."""
        return range(count)

    def _of_all_batches(self, sums: list[Tensor], count: int) -> Tensor:  # noqa: ARG002 - see ParallelRun
        """The sums over each of the `count` batches, of which `sums` are this process's."""
        return torch.stack(sums)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    @abstractmethod
    def _set_rates(self, step: int) -> None:
        """Give the optimizer, and what clips, the learning rates of a step."""

    @abstractmethod
    def _disturb(self, parameters: Sequence[Tensor]) -> None:
        """Disturb the gradients as the config asks for."""

    @abstractmethod
    def _clip_and_step(self) -> Report:
        """Clip the gradients and let the optimizer make its step."""

    @abstractmethod
    def _summed_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of a batch's scores: one number, or one a run."""

    @abstractmethod
    def _mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch: one number, or one a run."""

    @abstractmethod
    def _summed_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of a batch's losses: one number, or one a run."""
