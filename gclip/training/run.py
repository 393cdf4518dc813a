"""One run's moving parts: model, optimizer, clipper, batches; one epoch, one measurement."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gclip.clipping.clipper import Clipper
from gclip.clipping.record import Record
from gclip.training import models, optimizers, seeds
from gclip.training.batches import Epoch, Normalizer, batches
from gclip.training.config import RunConfig
from gclip.training.dataset import SIZE, Dataset
from gclip.training.device import memory_format
from gclip.training.disturbances import Disturbance, wrong_labels
from gclip.training.divergence import DivergenceMonitor
from gclip.training.graphs import ForwardBackward, recorder
from gclip.training.result import RunResult, Status, skip_warning
from gclip.training.stepping import Stepper

_EXAMPLES = 128  # how many single gradients are held at once, where examples are clipped
_MEASURED_AT_ONCE = 500  # images in a forward pass without gradients


class Run:
    """The state of a run and what is done with it. Call within `device.reproducible`.

    Attributes:
        epoch: whole epochs done.
        step: optimizer steps done.
        steps: how many there will be in all.
        curve: what `measure` found, one dict an epoch.
        before_step: called at each step, skipped ones too, when its gradients have been clipped.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, device: torch.device) -> None:
        self.config, self.device = config, device
        data = config.select_from(dataset.to(device))
        self._data = data
        classes = len(dataset.classes)
        self._train_labels = wrong_labels(
            data.train_labels, config.label_noise, classes, config.seed
        )
        self._disturbance = Disturbance(config.gradient_noise, config.spikes, config.seed)
        self._normalizer = Normalizer.of(data.mean, data.std, SIZE, device)
        self._layout = memory_format(device, config.precision)
        self._chance = 1 / len(dataset.classes)
        model = models.build(config.model, len(dataset.classes), config.seed)
        self.model = model.to(device).to(memory_format=self._layout)
        self._parameters = list(self.model.parameters())
        self.optimizer = optimizers.build(
            config.optimizer,
            self._parameters,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            settings=config.settings,
            device=device,
        )
        self._stepper = Stepper(self.optimizer)
        self.before_step: Callable[[], None] | None = None
        nonfinite = cast(Any, config.nonfinite)
        self.watch = DivergenceMonitor(device)
        self._order = seeds.generator(config.seed, "order")
        self._augmentation = seeds.generator(config.seed, "augmentation")
        torch.manual_seed(seeds.derive(config.seed, "strategy"))
        self._count = len(data.train_labels)
        self._group = config.batch_size * config.accumulate
        self._epoch_steps = math.ceil(self._count / self._group)
        self.steps = self._epoch_steps * config.epochs
        self.clipper = Clipper(
            self.model,
            config.strategy,
            nonfinite=nonfinite,
            optimizer=self.optimizer,
            total_steps=self.steps,
            max_consecutive_skips=None,  # such a run has diverged: see `DivergenceMonitor`
        )
        self._rates = optimizers.learning_rates(config.schedule, config.lr, self.steps)
        whole = config.accumulate == 1 and not self.clipper.per_sample
        self.backward = ForwardBackward(
            self.model, self._compute, *recorder(device, self.steps, whole=whole)
        )
        self.epoch = self.step = 0
        self.curve: list[dict[str, Any]] = []

    @property
    def train_examples(self) -> int:
        """How many examples an epoch has."""
        return self._count

    @property
    def epoch_under_way(self) -> int:
        """From 1; at an epoch's end still that one."""
        return max(1, math.ceil(self.step / self._epoch_steps))

    def train_epoch(self, go_on: Callable[[], bool]) -> bool:
        """Train one epoch; False if it was broken off, by divergence or because `go_on` said so.

        A step that is skipped is a step like any other to the schedules, the record and the count,
        but weights and the optimizer's state stay as they are.
        """
        config, model, clipper, optimizer = self.config, self.model, self.clipper, self.optimizer
        watch, parameters, rates = self.watch, self._parameters, self._rates
        changing = config.schedule != "constant"
        model.train()
        augmentation = self._augmentation if config.augment else None
        drawn = Epoch.draw(self._count, self._order, augmentation, self.device)
        stream = batches(
            self._data.train_images,
            self._train_labels,
            config.batch_size,
            drawn,
            self._normalizer,
            self._layout,
        )
        precision = self._precision()
        unclipped = contextlib.nullcontext()
        disturbance = self._disturbance
        for start in range(0, self._count, self._group):
            in_group = min(self._group, self._count - start)
            if changing:  # first of all: strategies see the rate of the step that they clip
                for group in optimizer.param_groups:
                    group["lr"] = rates[self.step]
            loss: Tensor | None = None
            for _ in range(math.ceil(in_group / config.batch_size)):
                images, labels = next(stream)
                share = len(labels) / in_group
                if clipper.per_sample:
                    with precision:
                        part = clipper.backward(images, labels, scale=share, chunk=_EXAMPLES)
                elif share == 1:
                    part = self.backward(images, labels)
                else:
                    part = self._compute(images, labels, share)
                loss = part.detach() if loss is None else loss + part.detach()
            if disturbance:
                disturbance.apply(parameters)
            report = clipper.step()
            if self.before_step is not None:
                self.before_step()
            with clipper.updating() if clipper.on_updates else unclipped:
                self._stepper.step(report.skipped)
            for parameter in parameters:
                parameter.grad = None
            self.step += 1
            if not watch.note(cast(Tensor, loss), report.finite):
                return False
            if not go_on():
                watch.look()
                return False
        self.epoch += 1
        return watch.look()

    def _compute(self, images: Tensor, labels: Tensor, share: float = 1) -> Tensor:
        """Add the gradients of a batch; its mean loss, times its share of the step's images."""
        with self._precision():
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), labels)
        if share != 1:
            loss = loss * share
        torch.autograd.backward(loss)
        return loss.detach()

    def measure(self, seconds: float) -> None:
        """Measure accuracy and loss on ``config.split`` and put them on the curve."""
        accuracy, loss = self._evaluate()
        if math.isfinite(loss):
            self._note(accuracy, loss, seconds)
        elif self.watch.diverged_at is None:
            self.watch.diverged_at = self.step
            self.watch.reason = (
                f"the loss on {self.config.split} was not finite at step {self.step}"
            )

    def mark_diverged(self, seconds: float) -> None:
        """End the curve of a diverged run at chance."""
        self.step = cast(int, self.watch.diverged_at)
        self._note(self._chance, math.inf, seconds)

    def _note(self, accuracy: float, loss: float, seconds: float) -> None:
        since = self.curve[-1]["step"] if self.curve else 0
        own = self.watch.losses[since : self.step]
        self.curve.append(
            {
                "epoch": self.epoch_under_way,
                "step": self.step,
                "train_loss": float(np.mean(own)) if own else math.nan,
                "accuracy": accuracy,
                "loss": loss,
                "seconds": seconds,
            }
        )

    @torch.inference_mode()
    def _evaluate(self) -> tuple[float, float]:
        images, labels = self._data.test_images, self._data.test_labels
        everything = Epoch.in_order(len(labels), self.device)
        # A Mac's GPU has no float64; over 500 images float32 is exact enough.
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        losses: list[Tensor] = []
        self.model.eval()
        precision = self._precision()
        for batch, answers in batches(
            images, labels, _MEASURED_AT_ONCE, everything, self._normalizer, self._layout
        ):
            with precision:
                logits = self.model(batch)
            right += (logits.argmax(1) == answers).sum()
            losses.append(F.cross_entropy(logits.float(), answers, reduction="sum"))
        total = torch.stack(losses).cpu().double().sum()
        return int(right) / len(labels), float(total) / len(labels)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def result(
        self, status: Status, message: str, *, seconds: float, environment: dict[str, Any]
    ) -> RunResult:
        """What came of the run so far."""
        last = self.curve[-1]
        # A divergence shows in a loss after its step, on a GPU many steps after: what was recorded
        # from then on is not the run's.
        record = Record()
        record.load_state_dict({"rows": self.clipper.record.state_dict()["rows"][: self.step]})
        steps = {
            "loss": np.array(self.watch.losses, dtype=np.float32),
            "lr": np.array(self._rates, dtype=np.float32),
            **record.arrays(),
        }
        summary = record.summary()
        return RunResult(
            config=self.config,
            status=status,
            stopped_at=None if status == "finished" else self.step,
            message=message or skip_warning(summary),
            accuracy=last["accuracy"],
            chance=self._chance,
            loss=last["loss"],
            train_loss=last["train_loss"],
            curve=self.curve,
            clipping=summary.as_dict(),
            seconds=seconds,
            steps={name: values[: self.step] for name, values in steps.items()},
            environment=environment,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on, at an epoch's end."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "clipper": self.clipper.state_dict(),
            "order": self._order.get_state(),
            "augmentation": self._augmentation.get_state(),
            "noise": self._disturbance.chance.get_state(),
            "chance": torch.get_rng_state(),
            "chance_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
            "losses": list(self.watch.losses),
            "broken": self.watch.broken,
            "epoch": self.epoch,
            "step": self.step,
            "curve": self.curve,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.clipper.load_state_dict(state["clipper"])
        self._order.set_state(state["order"])
        self._augmentation.set_state(state["augmentation"])
        self._disturbance.chance.set_state(state["noise"])
        torch.set_rng_state(state["chance"])
        if state["chance_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["chance_cuda"])
        self.watch.losses = list(state["losses"])
        self.watch.broken = state["broken"]
        self.epoch, self.step = state["epoch"], state["step"]
        self.curve = list(state["curve"])
