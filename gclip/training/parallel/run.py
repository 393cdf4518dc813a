"""One process's part of a run that several train: as `Run`, with its rows of every batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any, NoReturn

import torch
from torch import Tensor

from gclip.core import registry
from gclip.core.players import parts_of
from gclip.errors import UsageError
from gclip.training.batches import Epoch, batches
from gclip.training.config import RunConfig
from gclip.training.dataset import Dataset
from gclip.training.graphs import ForwardBackward
from gclip.training.loop import Batches
from gclip.training.parallel.batch_share import BatchShare
from gclip.training.parallel.gradient_sum import GradientSum
from gclip.training.parallel.rehearsal import ROWS, rehearse
from gclip.training.parallel.split_layers import split_layers
from gclip.training.parallel.world import World
from gclip.training.problem import Problem
from gclip.training.run import Run


class ParallelRun(Run):
    """A run whose batches several processes share; all of them hold all of its state.

    Each draws the same epochs, computes its rows of each batch, and adds the gradients up with the
    others before they are clipped. So clipper, optimizer and record are the same everywhere, to the
    last bit, and a checkpoint is that of one process.

    Args:
        config, dataset, device: as `Run`.
        world: the processes.

    Raises:
        UsageError: the run cannot be shared out.
    """

    resumes_within_epochs = False
    """All processes would have to stop at the same step."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, device: torch.device, world: World
    ) -> None:
        for part in parts_of(registry.parse_for_run(config.strategy)):
            if part.side == "sample":
                raise UsageError(
                    f"{part} clips single examples and learns from all of a step, of which each "
                    f"of {world.size} processes has some; train it in one process"
                )
        super().__init__(config, dataset, device)
        self._world = world
        self._share = BatchShare(world.rank, world.size)
        self._all_take_part = split_layers(self.model, world, self._share)
        self.history.monitor.in_step_with_others()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        why = f"{world.size} processes add their gradients up" if device.type == "cuda" else ""
        self.backward = ForwardBackward(self.model, self._compute, None, why)
        world.spread(*(t.detach() for t in chain(self.model.parameters(), self.model.buffers())))
        self._rehearse(GradientSum(world, parameters))
        self._sum = GradientSum(world, parameters)

    @property
    def facts(self) -> dict[str, Any]:
        """What a result's environment tells of the run beside the machine."""
        return {**super().facts, "world_size": self._world.size}

    # -- a step ------------------------------------------------------------------------------

    def _train_batches(self, labels: Tensor, epoch: Epoch) -> Batches:
        size = self.config.batch_size
        own = epoch.at(self._share.of_batches(self._count, size))
        full, rest = divmod(self._count, size)
        whole, last = self._share.divide(size).count, self._share.divide(rest).count
        return chain(
            self._own_batches(labels, own.at(slice(0, full * whole)), whole, full),
            self._own_batches(labels, own.at(slice(full * whole, None)), last, int(rest > 0)),
        )

    def _own_batches(self, labels: Tensor, epoch: Epoch, size: int, count: int) -> Batches:
        images = self._data.train_images
        if not size:
            nothing = images.new_zeros((0, *images.shape[1:]), dtype=torch.float32)
            return repeat((nothing, labels[:0]), count)
        return batches(images, labels, size, epoch, self._normalizer, self._memory_format)

    def _accumulate(self, stream: Batches, images: int) -> Tensor:
        left, loss, idle = images, torch.zeros((), device=self.device), True
        while left:
            share = self._share.divide(min(self.config.batch_size, left))
            inputs, labels = next(stream)
            loss = loss + self._add_own(inputs, labels, images)
            idle = idle and not (share.count or self._all_take_part)
            left -= share.total
        return self._sum(loss, idle=idle)

    def _add_own(self, inputs: Tensor, labels: Tensor, images: int) -> Tensor:
        """Add the gradients of this process's rows; their part of the mean loss over `images`."""
        if len(inputs):
            return self._compute(inputs, labels, len(inputs) / images)
        if self._all_take_part:  # others wait for it in layers that look at the whole batch
            with self._precision():
                nothing = self.model(inputs).sum() * 0
            torch.autograd.backward(nothing)
        return torch.zeros((), device=self.device)

    def _rehearse(self, add_up: GradientSum) -> None:
        """Try some rows; see `gclip.training.parallel.rehearsal`."""
        rows = min(self._count, self.config.batch_size, ROWS * self._world.size)
        some = Epoch.in_order(rows, self.device)
        images, layout = self._data.train_images, self._memory_format
        found = batches(images, self._train_labels, rows, some, self._normalizer, layout)
        inputs, labels = next(found)

        def whole() -> Tensor:
            self._share.keep_whole(rows)
            return self._compute(inputs, labels)

        def split() -> Tensor:
            own = self._share.divide(rows)
            part = slice(own.start, own.stop)
            loss = self._add_own(inputs[part], labels[part], rows)
            return add_up(loss, idle=not (own.count or self._all_take_part))

        self.model.train()
        with self._in_full_precision():
            rehearse(self.model, whole, split, self._world.size)

    @contextlib.contextmanager
    def _in_full_precision(self) -> Iterator[None]:
        self._precision = contextlib.nullcontext  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self._precision

    # -- a measurement -------------------------------------------------------------------------

    def _measured_batches(self, count: int) -> range:
        world = self._world
        return range(count * world.rank // world.size, count * (world.rank + 1) // world.size)

    def _of_all_batches(self, sums: list[Tensor], count: int) -> Tensor:
        own = self._measured_batches(count)
        everybodys = torch.zeros(count, device=self.device)
        if sums:
            everybodys[own.start : own.stop] = torch.stack(sums).to(everybodys)
        self._world.add_up(everybodys)
        return everybodys


def refuse_general(problem: Problem, size: int) -> NoReturn:
    """`UsageError` for a problem that makes its batches and losses by itself."""
    raise UsageError(
        f"task {problem.name} makes its own batches and losses, which cannot be shared out to "
        f"{size} processes; train it in one process, or many such runs side by side with gclip "
        "compare --workers"
    )
