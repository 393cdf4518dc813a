"""Images of a user's own, in class folders."""

from __future__ import annotations

from dataclasses import dataclass

import gclip
from gclip.training.data import load_dataset
from gclip.training.dataset import Dataset
from gclip.training.problem import Source
from gclip.training.supervised import Supervised


@gclip.register_problem("images")
@dataclass(frozen=True, kw_only=True)
class Images(Supervised):
    """Recognise images of your own: ``--data DIR`` with ``train/<class>/*`` and ``test/<class>/*``.

    Any number of classes, images of any size: they are resized to `size` (the shorter side; of what
    is no square the middle is taken), and read in colour or in grey.
    """

    defaults = {"optimizer": "adam", "lr": 1e-3, "batch_size": 32, "epochs": 10}

    size: int = gclip.setting(32, at_least=1, doc="side of an image, in pixels")
    channels: int = gclip.setting(3, choices=(1, 3), doc="3 for colour, 1 for grey")

    def data(self, source: Source) -> Dataset:
        """The images of the folder, decoded once."""
        return load_dataset(
            "images", source.folder, source.download, size=self.size, channels=self.channels
        )
