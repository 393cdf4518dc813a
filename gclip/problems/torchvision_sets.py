"""The classification sets that torchvision has: FashionMNIST, SVHN, CIFAR100 and others."""

from __future__ import annotations

from dataclasses import dataclass

import gclip
from gclip.errors import choose
from gclip.training import torchvision_sets
from gclip.training.data import load_dataset
from gclip.training.dataset import Dataset
from gclip.training.problem import Source
from gclip.training.supervised import Supervised


@gclip.register_problem("torchvision")
@dataclass(frozen=True, kw_only=True)
class TorchvisionSet(Supervised):
    """Recognise the images of a set of torchvision's, by its name there.

    ``--task torchvision:FashionMNIST``; torchvision downloads it and verifies its checksums, or
    finds it in ``--data`` (what it calls ``root``).
    """

    defaults = {"optimizer": "adam", "lr": 1e-3, "batch_size": 128, "epochs": 5}

    set: str = gclip.setting("FashionMNIST", doc="torchvision's name of it")
    size: int = gclip.setting(0, at_least=0, doc="side of an image, in pixels; 0 for the set's own")

    def validate(self) -> None:
        """Refuse a set that torchvision has not."""
        choose(self.set, torchvision_sets.names(), "set of torchvision's")

    def __str__(self) -> str:
        """``torchvision:FashionMNIST``, with the size where it is another."""
        if not self.size:
            return f"torchvision:{self.set}"
        return f"torchvision(set={self.set}, size={self.size})"

    def data(self, source: Source) -> Dataset:
        """The set's images, decoded once."""
        return load_dataset(
            f"torchvision:{self.set}", source.folder, source.download, size=self.size or None
        )
