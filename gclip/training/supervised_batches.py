"""The batches of a data set for problems that take a `Supervised`'s data by the general path."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from torch import Tensor

from gclip.training.batches import EVALUATION_BATCH, Epoch, Normalizer, batches
from gclip.training.dataset import Dataset
from gclip.training.device import memory_format
from gclip.training.disturbances import wrong_labels
from gclip.training.fits import check_fits

if TYPE_CHECKING:
    from gclip.training.run_state import RunState


class SupervisedBatches:
    """What a run learns from and is measured on, as the fast path has it.

    Args:
        state: of the run; its data is a `Dataset`.

    Attributes:
        count: batches an epoch.
    """

    def __init__(self, state: RunState) -> None:
        config = state.config
        dataset = cast(Dataset, state.data)
        check_fits(config, dataset)
        self._state, self._split = state, config.select_from(dataset)
        self._labels = wrong_labels(
            self._split.train_labels, config.label_noise, len(dataset.classes), config.seed
        )
        self._normalizer = None
        if dataset.is_images:
            mean, std = self._split.mean, self._split.std
            sides = (dataset.inputs[1], dataset.inputs[2])
            self._normalizer = Normalizer.of(mean, std, sides, state.device)
        self._layout = memory_format(state.device, config.precision)
        self.count = math.ceil(len(self._labels) / config.batch_size)

    def draw(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the next epoch, drawn from the run's seed."""
        state, config = self._state, self._state.config
        augmentation = state.generator("augmentation") if config.augment else None
        epoch = Epoch.draw(len(self._labels), state.generator("order"), augmentation, state.device)
        return batches(
            self._split.train_images, self._labels, config.batch_size, epoch, self._normalizer,
            self._layout,
        )  # fmt: skip

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The examples that the run is measured on, as they lie."""
        everything = Epoch.in_order(len(self._split.test_labels), self._state.device)
        return batches(
            self._split.test_images, self._split.test_labels, EVALUATION_BATCH, everything,
            self._normalizer, self._layout,
        )  # fmt: skip
