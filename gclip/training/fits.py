"""Do a config and the data go together? What a config asks for, some data cannot give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gclip.errors import UsageError

if TYPE_CHECKING:
    from gclip.training.config import RunConfig
    from gclip.training.dataset import Dataset


def check_fits(config: RunConfig, dataset: Dataset) -> None:
    """Check that `dataset` has what `config` asks for.

    Raises:
        UsageError: augmentation, or a choice of how to normalise, of inputs that are no images;
            wrong labels where there are no labels, or a single class of them.
    """
    if not dataset.is_images:
        shape = ", ".join(map(str, dataset.inputs))
        what = f"the inputs of {dataset.name} are float32 of shape (N, {shape})"
        if config.augment:
            raise UsageError(f"augment flips and crops images of bytes, but {what}; leave it false")
        if config.normalize != "standard":
            raise UsageError(
                f"normalize {config.normalize} is for images of bytes, but {what}, which are used "
                "as they are; leave it standard"
            )
    if config.label_noise and not dataset.is_classification:
        raise UsageError(
            f"label_noise {config.label_noise:g} gives examples another class, but the targets of "
            f"{dataset.name} are a regression's; leave it 0"
        )
    if config.label_noise and dataset.outputs == 1:
        raise UsageError(
            f"label_noise {config.label_noise:g} gives examples another class, but {dataset.name} "
            f"has only {dataset.classes[0]!r}; leave it 0"
        )
