"""Many runs' moving parts: stacked model, optimizer, clipper, batches; one epoch, one measurement.

What `gclip.training.run.Run` is to one run. Nothing here goes from run to run within a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from gclip.clipping.async_copy import AsyncCopy
from gclip.clipping.record import Record
from gclip.training import models, optimizers, seeds
from gclip.training.batches import EVALUATION_BATCH, Epoch
from gclip.training.config import RunConfig
from gclip.training.dataset import Dataset
from gclip.training.disturbances import Disturbance, wrong_labels
from gclip.training.fleet.clipper import FleetClipper
from gclip.training.fleet.member import FleetMember
from gclip.training.fleet.optimizer import StackedOptimizer
from gclip.training.fleet.report import FleetReport
from gclip.training.fleet.stack import select_runs, stack
from gclip.training.graphs import ForwardBackward, recorder
from gclip.training.loop import TrainingLoop

_LOOK = 64  # steps whose losses are looked at together
_EVALUATION_IMAGES = 1000  # images · runs in a forward pass without gradients; they fit the cache


class FleetRun(TrainingLoop[FleetReport]):
    """The state of the runs of a fleet. Call within `device.reproducible`.

    Attributes:
        members: what is particular to each run, those that left too.
        present: the indices in `members` of the runs in the stack, in the stack's order.
    """

    def __init__(
        self, configs: Sequence[RunConfig], dataset: Dataset, device: torch.device
    ) -> None:
        super().__init__(configs[0], dataset, device)
        outputs = dataset.outputs
        self.members = [
            FleetMember(
                each,
                optimizers.learning_rates(each.schedule, each.lr, self.steps),
                self.problem.metric_of(dataset),
                self._epoch_steps,
            )
            for each in configs
        ]
        self.present = list(range(len(configs)))
        models_built = [models.build(c.model, dataset.inputs, outputs, c.seed) for c in configs]
        self.model = stack(models_built).to(device)
        self._optimizer = StackedOptimizer(self.config, list(self.model.parameters()), device)
        self.clipper = FleetClipper(
            dict(self.model.named_parameters()),
            [each.strategy for each in configs],
            nonfinite=cast(Any, self.config.nonfinite),
            optimizer=self._optimizer.optimizer,
            rates=torch.tensor([each.lr for each in configs], dtype=torch.float32, device=device),
            total_steps=self.steps,
            model=models_built[0],
        )
        self._streams = _Streams(configs)
        self._streams_at_start = self._streams.state_dict()
        self._labels = [
            wrong_labels(self._data.train_labels, noise, outputs, seed)
            for seed, noise in self._streams.keys
        ]
        self._disturbances = [Disturbance(c.gradient_noise, c.spikes, c.seed) for c in configs]
        self.backward = self._forward_backward()
        self._unseen: list[tuple[Tensor, Tensor]] = []  # losses, and what was finite
        self._pending: tuple[AsyncCopy, AsyncCopy] | None = None

    def train_epoch(self, after_step: Callable[[], object] = lambda: None) -> bool:
        """Train one epoch; False if it was broken off because no run is left that goes on.

        A run that diverges in it goes on to its end, and nothing of that counts. `after_step` is
        called after each step.
        """
        self._begin_epoch()
        self._streams_at_start = self._streams.state_dict()
        epochs = self._streams.draw(self._count, self.config.augment, self.device)
        for loss, report in self._train_steps(self._batches(epochs)):
            self._unseen.append((loss, report.finite))
            after_step()
            if len(self._unseen) >= _LOOK and not self.look(last=False):
                return False
        self.epoch += 1
        self.within = 0
        return self.look()

    def measure(self) -> list[tuple[float, float]]:
        """The accuracy and loss on ``config.split`` of each present run."""
        batch_size = min(EVALUATION_BATCH, max(16, _EVALUATION_IMAGES // len(self.present)))
        accuracies, losses = self._evaluate(batch_size)
        return list(zip(accuracies.tolist(), losses.tolist(), strict=True))

    def look(self, *, last: bool = True) -> bool:
        """Look at what happened since the last time; False if no present run goes on.

        Before the `last` look of an epoch a GPU is not waited for: what has come is seen.
        """
        self._receive()
        if self._unseen:
            losses, finites = zip(*self._unseen, strict=True)
            self._pending = (AsyncCopy(torch.stack(losses)), AsyncCopy(torch.stack(finites)))
            self._unseen = []
        if last or self.device.type != "cuda":
            self._receive()
        return any(self.members[run].diverged_at is None for run in self.present)

    def select_runs(self, indices: Sequence[int]) -> None:
        """Go on with only the runs at these indices in the stack."""
        select_runs(self.model, indices)
        named = dict(self.model.named_parameters())
        self._optimizer.select_runs(indices, list(named.values()))
        self.present = [self.present[index] for index in indices]
        self.clipper.select_runs(indices, named, optimizer=self._optimizer.optimizer)
        self._set_rates(max(0, self.step - 1))
        self.backward = self._forward_backward()

    def select_none(self) -> None:
        """All runs have ended: nothing is left to train."""
        self.present = []

    def records(self) -> list[Record]:
        """What clipping did in each present run."""
        return self.clipper.records()

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the runs depends on, between two steps of which all was looked at.

        Within an epoch that is to be drawn again, as it was at its start.
        """
        return {
            "present": list(self.present),
            "members": [self.members[run].state_dict() for run in self.present],
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "clipper": self.clipper.state_dict(),
            "streams": self._streams_at_start if self.within else self._streams.state_dict(),
            "noise": [self._disturbances[run].generator.get_state() for run in self.present],
            "chance": torch.get_rng_state(),
            "chance_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
            "epoch": self.epoch,
            "step": self.step,
            "within": self.within,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, in a fleet of the same configs."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.within = self._goes_on_at = state["within"]
        if state["present"] != self.present:
            self.select_runs(state["present"])
        for run, member in zip(self.present, state["members"], strict=True):
            self.members[run].load_state_dict(member)
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._set_rates(max(0, self.step - 1))
        self.clipper.load_state_dict(state["clipper"])
        self._streams.load_state_dict(state["streams"])
        for run, noise in zip(self.present, state["noise"], strict=True):
            self._disturbances[run].generator.set_state(noise)
        torch.set_rng_state(state["chance"])
        if state["chance_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["chance_cuda"])

    # -- inside ------------------------------------------------------------------------------

    def _batches(self, epochs: Mapping[int, Epoch]) -> Iterator[tuple[Tensor, Tensor]]:
        """What is left of an epoch's batches, for the present runs: inputs ``(batch, first, …)``
        for all, or those of runs of several seeds along dimension 1, ``(batch, runs · first, …)``:
        of images ``(batch, runs · channels, H, W)``. Targets ``(batch, …)`` for all, or
        ``(runs, batch, …)``."""
        stream_of_run = self._streams.of(self.present)
        used = sorted(set(stream_of_run))
        seeds_used = [self._streams.keys[index][0] for index in used]
        streams = [
            self._train_batches(self._labels[index], epochs[seed])
            for index, seed in zip(used, seeds_used, strict=True)
        ]
        if len(used) == 1:
            yield from streams[0]
            return
        sources = [used.index(index) for index in stream_of_run]
        same_images = len(set(seeds_used)) == 1
        for drawn in zip(*streams, strict=True):
            labels = torch.stack([drawn[index][1] for index in sources])
            images = [drawn[index][0] for index in sources]
            yield images[0] if same_images else torch.cat(images, 1), labels

    def _set_rates(self, step: int) -> None:
        rates = [self.members[run].history.rates[step] for run in self.present]
        self._optimizer.set_rates(rates)
        each = torch.tensor(rates, dtype=torch.float32)
        self.clipper.set_rates(each.to(self.device, non_blocking=True))

    def _disturb(self, parameters: Sequence[Tensor]) -> None:
        for row, run in enumerate(self.present):
            if self._disturbances[run]:
                own: Any = [SimpleNamespace(grad=cast(Tensor, p.grad)[row]) for p in parameters]
                self._disturbances[run].apply(own)

    def _clip_and_step(self) -> FleetReport:
        """Where updates are clipped, one that turns out to be one to skip leaves no trace in the
        optimizer either."""
        report = self.clipper.step()
        undoable = self.clipper.undoable
        if undoable is not None:
            self._optimizer.save(undoable)
        with self.clipper.updating():
            self._optimizer.step(report.skipped)
        if undoable is not None and self.clipper.report is not None:
            self._optimizer.restore(self.clipper.report.skipped)
        return report

    def _forward_backward(self) -> ForwardBackward:
        """The pass of the present stack, for the steps to come."""
        whole = self.config.accumulate == 1
        record, why = recorder(self.device, self.steps - self.step, whole=whole)
        return ForwardBackward(self.model, self._compute, record, why)

    def _mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of each run, ``(runs,)``, from logits ``(runs, batch, outputs)``."""
        outputs, targets = self._examples(logits, labels)
        each = self.problem.loss(outputs, targets, reduction="none")
        return each.view(len(logits), -1).mean(1)

    def _summed_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self._mean_loss(logits, labels) * len(labels)

    def _summed_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        scores = self.problem.score(*self._examples(logits, labels))
        return scores.view(len(logits), -1).sum(1)

    def _examples(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs ``(runs · batch, outputs)`` and targets of all runs, as one batch."""
        runs, batch = logits.shape[:2]
        shared = labels.dim() == self._data.train_labels.dim()
        own = labels.expand(runs, *labels.shape) if shared else labels
        return logits.float().flatten(0, 1), own.reshape(runs * batch, *own.shape[2:])

    def _receive(self) -> None:
        if self._pending is None:
            return
        losses, finites = (copy.values() for copy in self._pending)
        self._pending = None
        for row, run in enumerate(self.present):
            for loss, finite in zip(losses, finites, strict=True):
                self.members[run].note(loss[row], finite[row])


class _Streams:
    """Which runs see the same images in the same order, and the same labels.

    Attributes:
        keys: the seed and the share of wrong labels of each stream.
    """

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        own = [(config.seed, config.label_noise) for config in configs]
        self.keys = list(dict.fromkeys(own))
        self._of = [self.keys.index(each) for each in own]
        self._order = {seed: seeds.generator(seed, "order") for seed, _ in self.keys}
        self._augmentation = {seed: seeds.generator(seed, "augmentation") for seed, _ in self.keys}

    def of(self, runs: Sequence[int]) -> list[int]:
        return [self._of[run] for run in runs]

    def state_dict(self) -> dict[str, Any]:
        """Where the draws of each seed are."""
        return {
            str(seed): (order.get_state(), self._augmentation[seed].get_state())
            for seed, order in self._order.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        for seed, order in self._order.items():
            of_order, of_augmentation = state[str(seed)]
            order.set_state(of_order)
            self._augmentation[seed].set_state(of_augmentation)

    def draw(self, count: int, augment: bool, device: torch.device) -> dict[int, Epoch]:
        """The next epoch of every seed, of those that left too: they draw from their own."""
        return {
            seed: Epoch.draw(count, order, self._augmentation[seed] if augment else None, device)
            for seed, order in self._order.items()
        }
