"""Which examples does a run learn from, which is it measured on, and how are they normalised?

The answer is part of a run's identity: `RunConfig.selection` holds the version of the rules below
wherever they matter, so that runs made under other rules are never taken for these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gclip.errors import UsageError
from gclip.training.dataset import Dataset, channel_statistics

VERSION = 2
"""Of the rules. Version 1 held validation images out over all classes together, and normalised by
all training images, those that the run did not learn from among them."""

Channels = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """The examples one run learns from, and those it is measured on.

    Attributes:
        train_images, test_images, train_labels, test_labels: as in `Dataset`.
        mean, std: of each channel of ``train_images``, on the scale 0 to 1; empty where they are no
            images.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: Channels
    std: Channels


def matters(*, fraction: float, split: str, normalize: str) -> bool:
    """Whether the rules have a say in a run with these settings.

    Without a validation split, and without a fraction that changes mean and deviation, every
    version of them comes to the same images and the same numbers.
    """
    return split == "validation" or (fraction < 1 and normalize == "standard")


def select_for(
    dataset: Dataset, *, fraction: float, split: str, normalize: str, version: int | None
) -> Split:
    """What a run with these settings sees of `dataset`, and what it normalises by.

    Args:
        dataset: all images of the task.
        fraction, split, normalize: as in `gclip.training.RunConfig`.
        version: of the rules that the run asks for: its `selection`.

    Raises:
        UsageError: the config is of a run made under rules that are gone, or nothing would be left
            to learn from or to measure on.
    """
    if matters(fraction=fraction, split=split, normalize=normalize) and version != VERSION:
        raise UsageError(
            "the config is of a run made before validation images train every class's share and "
            "mean and deviation came from the images learned from, which cannot be made again; "
            "make it anew with config.replace(selection=None)"
        )
    found = select(dataset, fraction=fraction, split=split)
    if normalize == "half" and dataset.is_images:
        half = (0.5,) * dataset.inputs[0]
        images = (found.train_images, found.train_labels, found.test_images, found.test_labels)
        return Split(*images, half, half)
    return found


def select(dataset: Dataset, *, fraction: float = 1.0, split: str = "test") -> Split:
    """The part of `dataset` that a run with this `fraction` and `split` sees.

    Which images those are depends on the labels alone, not on a seed: every class keeps its share
    of the training images, at least one, and with ``split="validation"`` a tenth of every class
    (at least one, and never all of them) takes the test images' place. Of a smaller fraction both
    parts lie in those of a larger one, apart from classes of fewer than five images. The examples
    of a regression are chosen as if they were of one class.

    Raises:
        UsageError: a class has one image, which cannot be both learned from and held out.
    """
    images, labels = dataset.train_images, dataset.train_labels
    if fraction == 1 and split == "test":
        return Split(
            images, labels, dataset.test_images, dataset.test_labels, dataset.mean, dataset.std
        )
    alike = labels if dataset.is_classification else torch.zeros(len(labels), dtype=torch.int64)
    classes = by_class(alike.cpu().numpy(), fraction)
    if split == "test":
        train = _indices(classes, labels)
        return _split(dataset, train, dataset.test_images, dataset.test_labels)
    single = [label for label, members in classes.items() if len(members) == 1]
    if single and not dataset.is_classification:
        raise UsageError(
            f"split validation holds out at least one training example and learns from the others, "
            f"but at fraction {fraction:g} there is a single one; take a larger fraction, or split "
            "test"
        )
    if single:
        alone = [dataset.classes[label] for label in single]
        raise UsageError(
            f"split validation holds out at least one training image of every class and learns "
            f"from the others, but at fraction {fraction:g} {len(alone)} of {len(classes)} classes "
            f"have a single one (the first: {alone[0]}); take a larger fraction, or split test"
        )
    held_out = {label: held_out_mask(len(members)) for label, members in classes.items()}
    train = _indices({label: m[~held_out[label]] for label, m in classes.items()}, labels)
    test = _indices({label: m[held_out[label]] for label, m in classes.items()}, labels)
    return _split(dataset, train, images[test], labels[test])


def _split(dataset: Dataset, train: Tensor, test_images: Tensor, test_labels: Tensor) -> Split:
    images = dataset.train_images[train]
    mean, std = channel_statistics(images) if dataset.is_images else ((), ())
    return Split(images, dataset.train_labels[train], test_images, test_labels, mean, std)


def by_class(labels: NDArray[np.int64], fraction: float) -> dict[int, NDArray[np.int64]]:
    """`fraction` of every class, at least one of each: indices in random order, always the same."""
    # `numpy.random.RandomState` is frozen for ever, so these are the same images everywhere.
    order = np.random.RandomState(1).permutation(len(labels))
    shuffled = labels[order]
    found = {}
    for label in np.unique(labels):
        members = order[shuffled == label]
        found[int(label)] = members[: max(1, round(fraction * len(members)))]
    return found


def held_out_mask(count: int) -> NDArray[np.bool_]:
    """Which of a class's `count` ≥ 2 images are held out: of every ten the fifth, at least one."""
    # Every tenth in a fixed order, not the first tenth: so a larger fraction only adds to both.
    out = np.zeros(count, dtype=bool)
    out[4::10] = True
    out[-1] |= count < 5
    return out


def _indices(classes: dict[int, NDArray[np.int64]], labels: Tensor) -> Tensor:
    """The indices of all classes, sorted, on the labels' device."""
    return torch.from_numpy(np.sort(np.concatenate(list(classes.values())))).to(labels.device)
