"""One run's moving parts: model, optimizer, clipper, batches; one epoch, one measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from gclip.clipping.clipper import Clipper
from gclip.clipping.layer_norms import LayerNorms
from gclip.clipping.nonfinite import FirstNonfinite
from gclip.clipping.report import ClipReport
from gclip.training import models, optimizers, seeds
from gclip.training.batches import Epoch
from gclip.training.config import RunConfig
from gclip.training.dataset import Dataset
from gclip.training.device import lay_out
from gclip.training.disturbances import Disturbance, wrong_labels
from gclip.training.graphs import ForwardBackward, recorder
from gclip.training.history import RunHistory
from gclip.training.loop import TrainingLoop, build_optimizer
from gclip.training.models.layers import draws_chance
from gclip.training.random_streams import RandomStream
from gclip.training.result import RunResult, Status
from gclip.training.stepping import Stepper, clip_and_step

_EXAMPLES = 128  # how many single gradients are held at once, where examples are clipped


class Run(TrainingLoop[ClipReport]):
    """The state of a run and what is done with it. Call within `device.reproducible`.

    Attributes:
        history: its losses, its curve, and whether it diverged.
        before_step: called at each step, skipped ones too, when its gradients have been clipped.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, device: torch.device) -> None:
        super().__init__(config, dataset, device)
        outputs = dataset.outputs
        self._train_labels = wrong_labels(
            self._data.train_labels, config.label_noise, outputs, config.seed
        )
        self._disturbance = Disturbance(config.gradient_noise, config.spikes, config.seed)
        model = models.build(config.model, dataset.inputs, outputs, config.seed, config.dropout)
        self.model = lay_out(model.to(device), self._memory_format)
        self.optimizer = build_optimizer(config, self.model.parameters(), device)
        self._stepper = Stepper(self.optimizer)
        self._layers = LayerNorms(self.model) if config.watch == "layer" else None
        self.before_step: Callable[[], None] | None = None
        self._order = seeds.generator(config.seed, "order")
        self._augmentation = seeds.generator(config.seed, "augmentation")
        self._at_start = self._order.get_state(), self._augmentation.get_state()
        self._stream: RandomStream | None = None
        torch.manual_seed(seeds.derive(config.seed, "strategy"))
        chance = draws_chance(self.model)
        if chance or config.model_code:  # what it drops must not depend on what strategies draw
            self._stream = RandomStream(seeds.derive(config.seed, "strategy"), device)
            torch.manual_seed(seeds.derive(config.seed, "dropout"))
        self.clipper = Clipper(
            self.model,
            config.strategy,
            nonfinite=cast(Any, config.nonfinite),
            optimizer=self.optimizer,
            total_steps=self.steps,
            max_consecutive_skips=None,  # such a run has diverged: see `DivergenceMonitor`
        )
        rates = optimizers.learning_rates(config.schedule, config.lr, self.steps)
        metric = self.problem.metric_of(dataset)
        self.history = RunHistory(config, rates, metric, self._epoch_steps, device)
        whole = config.accumulate == 1 and not self.clipper.per_sample
        self.backward = ForwardBackward(
            self.model, self._compute, *recorder(device, self.steps, whole=whole, chance=chance)
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What a result's environment tells of the run beside the machine."""
        return self.backward.facts

    def train_epoch(self, should_continue: Callable[[], bool]) -> bool:
        """Train one epoch; False if it was broken off, by divergence or by `should_continue`.

        A step that is skipped is a step like any other to the schedules, the record and the count,
        but weights and the optimizer's state stay as they are.
        """
        self._begin_epoch()
        monitor = self.history.monitor
        augmentation = self._augmentation if self.config.augment else None
        self._at_start = self._order.get_state(), self._augmentation.get_state()
        epoch = Epoch.draw(self._count, self._order, augmentation, self.device)
        for loss, report in self._train_steps(self._train_batches(self._train_labels, epoch)):
            if not monitor.note(loss, report.finite):
                return False
            if not should_continue():
                monitor.look()
                return False
        self.epoch += 1
        self.within = 0
        return monitor.look()

    def measure(self, seconds: float) -> None:
        """Measure the metric and the loss on ``config.split`` and put them on the curve."""
        accuracy, loss = map(float, self._evaluate())
        self.history.add_evaluation(self.step, accuracy, loss, seconds)

    def mark_diverged(self, seconds: float) -> None:
        """End the curve of a diverged run at chance."""
        self.step = self.history.end_diverged(seconds)

    def result(
        self, status: Status, message: str, *, seconds: float, environment: dict[str, Any]
    ) -> RunResult:
        """What came of the run so far.

        Args:
            status: how it ended.
            message: why it stopped, "" where it finished.
            seconds: of wall clock.
            environment: the machine and versions.
        """
        return self.history.result(
            status,
            message,
            step=self.step,
            record=self.clipper.record,
            seconds=seconds,
            environment=environment,
            layers=self._layers,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on, between two steps.

        Within an epoch that is to be drawn again, as it was at its start.
        """
        order, augmentation = self._order.get_state(), self._augmentation.get_state()
        if self.within:
            order, augmentation = self._at_start
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "clipper": self.clipper.state_dict(),
            **self.clipper.record.location(),
            "order": order,
            "augmentation": augmentation,
            "noise": self._disturbance.generator.get_state(),
            "chance": torch.get_rng_state(),
            "chance_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
            "strategy": None if self._stream is None else self._stream.state_dict(),
            "layers": None if self._layers is None else self._layers.state_dict(),
            **self.history.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "within": self.within,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.clipper.load_state_dict(state["clipper"])
        self.clipper.record.locate(FirstNonfinite.from_dict(state.get("first_not_finite")))
        self._order.set_state(state["order"])
        self._augmentation.set_state(state["augmentation"])
        self._at_start = self._order.get_state(), self._augmentation.get_state()
        self._disturbance.generator.set_state(state["noise"])
        torch.set_rng_state(state["chance"])
        if state["chance_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["chance_cuda"])
        if self._stream is not None:
            self._stream.load_state_dict(state["strategy"])
        if self._layers is not None:
            self._layers.load_state_dict(state["layers"])
        self.history.load_state_dict(state)
        self.epoch, self.step = state["epoch"], state["step"]
        # Earlier versions saved at an epoch's end only.
        self.within = self._goes_on_at = state.get("within", 0)
        if self.within > self._epoch_steps:
            raise ValueError(f"it is at step {self.within} of an epoch of {self._epoch_steps}")

    # -- a step ------------------------------------------------------------------------------

    def _set_rates(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.history.rates[step]

    def _add_gradients(self, images: Tensor, labels: Tensor, share: float) -> Tensor:
        if not self.clipper.per_sample:
            return super()._add_gradients(images, labels, share)
        with self._precision():
            loss = self.clipper.backward(
                images, labels, self._mean_loss, scale=share, chunk=_EXAMPLES
            )
        return loss.detach()

    def _disturb(self, parameters: Sequence[Tensor]) -> None:
        if self._disturbance:
            self._disturbance.apply(parameters)

    def _clip_and_step(self) -> ClipReport:
        return clip_and_step(
            self.clipper,
            self._stepper,
            stream=self._stream,
            layers=self._layers,
            clipped=self.before_step,
        )

    def _mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.problem.loss(logits.float(), labels)

    def _summed_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.problem.loss(logits.float(), labels, reduction="sum")

    def _summed_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.problem.score(logits.float(), labels).sum(-1)
