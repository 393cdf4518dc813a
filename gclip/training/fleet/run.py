"""Many runs' moving parts: stacked model, optimizer, clipper, batches; one epoch, one measurement.

What `gclip.training.run.Run` is to one run. Nothing here goes from run to run within a step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gclip.clipping.async_copy import AsyncCopy
from gclip.clipping.record import Record
from gclip.training import models, optimizers, seeds
from gclip.training.batches import Epoch, Normalizer, batches
from gclip.training.config import RunConfig
from gclip.training.dataset import SIZE, Dataset
from gclip.training.device import memory_format
from gclip.training.disturbances import Disturbance, wrong_labels
from gclip.training.fleet.clipper import FleetClipper
from gclip.training.fleet.member import Member
from gclip.training.fleet.optimizer import StackedOptimizer
from gclip.training.fleet.stack import select_runs, stack
from gclip.training.graphs import ForwardBackward, recorder

_LOOK = 64  # steps whose losses are looked at together
_MEASURED_AT_ONCE = 1000  # images · runs in a forward pass without gradients; they fit the cache


class FleetRun:
    """The state of the runs of a fleet. Call within `device.reproducible`.

    Attributes:
        members: what is particular to each run, those that left too.
        present: the places in `members` of the runs in the stack, in the stack's order.
        epoch: whole epochs done.
        step: optimizer steps done.
        steps: how many there will be in all.
    """

    def __init__(
        self, configs: Sequence[RunConfig], dataset: Dataset, device: torch.device
    ) -> None:
        config = configs[0]
        self.config, self.device, self._configs = config, device, tuple(configs)
        data = config.select_from(dataset.to(device))
        self._data, classes = data, len(dataset.classes)
        self._normalizer = Normalizer.of(data.mean, data.std, SIZE, device)
        self._layout = memory_format(device, config.precision)
        self._count = len(data.train_labels)
        self._group = config.batch_size * config.accumulate
        self._epoch_steps = math.ceil(self._count / self._group)
        self.steps = self._epoch_steps * config.epochs
        self.members = [
            Member(
                each,
                optimizers.learning_rates(each.schedule, each.lr, self.steps),
                1 / classes,
                self._epoch_steps,
            )
            for each in configs
        ]
        self.present = list(range(len(configs)))
        built = [models.build(c.model, classes, c.seed) for c in configs]
        self.model = stack(built).to(device)
        self._optimizer = StackedOptimizer(config, list(self.model.parameters()), device)
        self.clipper = FleetClipper(
            dict(self.model.named_parameters()),
            [each.strategy for each in configs],
            nonfinite=cast(Any, config.nonfinite),
            optimizer=self._optimizer.optimizer,
            rates=torch.tensor([each.lr for each in configs], dtype=torch.float32, device=device),
            total_steps=self.steps,
            model=built[0],
        )
        self._streams = _Streams(configs)
        self._labels = [
            wrong_labels(data.train_labels, noise, classes, seed)
            for seed, noise in self._streams.keys
        ]
        self._disturbances = [Disturbance(c.gradient_noise, c.spikes, c.seed) for c in configs]
        self.epoch = self.step = 0
        self.backward = self._backward()
        self._sent: tuple[AsyncCopy, AsyncCopy] | None = None

    def train_epoch(self, after_step: Callable[[], object] = lambda: None) -> bool:
        """Train one epoch; False if it was broken off because no run is left that goes on.

        A run that diverges in it goes on to its end, and nothing of that counts. `after_step` is
        called after each step.
        """
        self.model.train()
        parameters = list(self.model.parameters())
        stream = self._epoch()
        disturbed = any(self._disturbances[place] for place in self.present)
        changing = self.config.schedule != "constant"
        losses: list[Tensor] = []
        finites: list[Tensor] = []
        for start in range(0, self._count, self._group):
            in_group = min(self._group, self._count - start)
            if changing or self.step == 0:  # strategies see the rate of the step that they clip
                self._set_rates(self.step)
            loss: Tensor | None = None
            for _ in range(math.ceil(in_group / self.config.batch_size)):
                images, labels = next(stream)
                share = labels.shape[-1] / in_group
                part = (
                    self.backward(images, labels)
                    if share == 1
                    else self._compute(images, labels, share)
                )
                loss = part if loss is None else loss + part
            if disturbed:
                self._disturb(parameters)
            report = self.clipper.step()
            if self.clipper.on_updates:
                self._update(report.skipped)
            else:
                self._optimizer.step(report.skipped)
            for parameter in parameters:
                parameter.grad = None
            self.step += 1
            after_step()
            losses.append(cast(Tensor, loss))
            finites.append(report.finite)
            if len(losses) == _LOOK:
                if not self._look(losses, finites):
                    return False
                losses, finites = [], []
        self.epoch += 1
        return self._look(losses, finites, last=True)

    @torch.inference_mode()
    def measure(self) -> list[tuple[float, float]]:
        """The accuracy and loss on ``config.split`` of each present run."""
        images, labels = self._data.test_images, self._data.test_labels
        everything = Epoch.in_order(len(labels), self.device)
        runs = len(self.present)
        at_once = min(500, max(16, _MEASURED_AT_ONCE // runs))
        right = torch.zeros(runs, dtype=torch.int64, device=self.device)
        losses: list[Tensor] = []
        self.model.eval()
        precision = self._precision()
        for batch, answers in batches(
            images, labels, at_once, everything, self._normalizer, self._layout
        ):
            with precision:
                logits = self.model(batch)
            right += (logits.argmax(2) == answers).sum(1)
            losses.append(_losses(logits, answers) * len(answers))
        total = torch.stack(losses).cpu().double().sum(0)
        pairs = zip(right.tolist(), total.tolist(), strict=True)
        return [(hits / len(labels), loss / len(labels)) for hits, loss in pairs]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with only the runs at these places in the stack."""
        select_runs(self.model, places)
        named = dict(self.model.named_parameters())
        self._optimizer.select_runs(places, list(named.values()))
        self.present = [self.present[place] for place in places]
        self.clipper.select_runs(places, named, optimizer=self._optimizer.optimizer)
        self._set_rates(self.step - 1)
        self.backward = self._backward()

    def records(self) -> list[Record]:
        """What clipping did in each present run."""
        return self.clipper.records()

    # -- inside ------------------------------------------------------------------------------

    def _epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the present runs: images for all or ``(batch, runs · channels, H, W)``;
        labels ``(batch,)`` or ``(runs, batch)``."""
        drawn = self._streams.draw(self._count, self.config.augment, self.device)
        mine = self._streams.of(self.present)
        used = sorted(set(mine))
        each = [
            batches(
                self._data.train_images, self._labels[place], self.config.batch_size,
                drawn[self._streams.keys[place][0]], self._normalizer, self._layout,
            )
            for place in used
        ]  # fmt: skip
        if len(used) == 1:
            yield from each[0]
            return
        at = [used.index(place) for place in mine]
        shared = len({self._streams.keys[place][0] for place in used}) == 1
        for found in zip(*each, strict=True):
            labels = torch.stack([found[place][1] for place in at])
            images = [found[place][0] for place in at]
            yield images[0] if shared else torch.cat(images, 1), labels

    def _update(self, skipped: Tensor) -> None:
        """The optimizer's step, which is clipped; what it turns out to be one to skip leaves no
        trace in the optimizer either."""
        runs = self.clipper.undoable
        if runs is not None:
            self._optimizer.save(runs)
        with self.clipper.updating():
            self._optimizer.step(skipped)
        if runs is not None and self.clipper.report is not None:
            self._optimizer.restore(self.clipper.report.skipped)

    def _set_rates(self, step: int) -> None:
        rates = [self.members[run].rates[step] for run in self.present]
        self._optimizer.set_rates(rates)
        each = torch.tensor(rates, dtype=torch.float32)
        self.clipper.set_rates(each.to(self.device, non_blocking=True))

    def _disturb(self, parameters: Sequence[Tensor]) -> None:
        for place, run in enumerate(self.present):
            own: Any = [SimpleNamespace(grad=cast(Tensor, p.grad)[place]) for p in parameters]
            self._disturbances[run].apply(own)

    def _backward(self) -> ForwardBackward:
        """The pass of the present stack, for the steps to come."""
        whole = self.config.accumulate == 1
        record, why = recorder(self.device, self.steps - self.step, whole=whole)
        return ForwardBackward(self.model, self._compute, record, why)

    def _compute(self, images: Tensor, labels: Tensor, share: float = 1) -> Tensor:
        """Add the gradients of a batch; each run's mean loss, times its share of the step's
        images."""
        with self._precision():
            logits = self.model(images)
        part = _losses(logits, labels)
        if share != 1:
            part = part * share
        torch.autograd.backward(part, torch.ones_like(part))
        return part.detach()

    def _look(self, losses: list[Tensor], finites: list[Tensor], last: bool = False) -> bool:
        """Look at what happened since the last time; False if no present run goes on.

        Before the `last` look of an epoch a GPU is not waited for: what has come is seen.
        """
        self._see()
        if losses:
            self._sent = (AsyncCopy(torch.stack(losses)), AsyncCopy(torch.stack(finites)))
        if last or self.device.type != "cuda":
            self._see()
        return any(self.members[run].diverged_at is None for run in self.present)

    def _see(self) -> None:
        if self._sent is None:
            return
        values, fine = (sent.values() for sent in self._sent)
        self._sent = None
        for place, run in enumerate(self.present):
            for row, ok in zip(values, fine, strict=True):
                self.members[run].note(row[place], ok[place])

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


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

    def draw(self, count: int, augment: bool, device: torch.device) -> dict[int, Epoch]:
        """The next epoch of every seed, of those that left too: they draw from their own."""
        return {
            seed: Epoch.draw(count, order, self._augmentation[seed] if augment else None, device)
            for seed, order in self._order.items()
        }


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of each run, ``(runs,)``, from logits ``(runs, batch, classes)``."""
    runs, batch, classes = logits.shape
    flat = logits.float().reshape(-1, classes)
    answers = labels.expand(runs, batch).reshape(-1)
    return F.cross_entropy(flat, answers, reduction="none").view(runs, batch).mean(1)
