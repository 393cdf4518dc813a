"""CIFAR-10: 60,000 small colour images of ten classes."""

from __future__ import annotations

from dataclasses import dataclass

import gclip
from gclip.training.data import load_dataset
from gclip.training.dataset import Dataset
from gclip.training.problem import Source
from gclip.training.supervised import Supervised


@gclip.register_problem("cifar10")
@dataclass(frozen=True, kw_only=True)
class Cifar10(Supervised):
    """Recognise the ten classes of CIFAR-10 (Krizhevsky, 2009).

    The images are downloaded, their checksums verified, or lie in ``--data``: the official
    ``cifar-10-batches-py``, or class folders ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``.
    The defaults are a tame setting in which a net of 62,006 parameters learns what it can in a few
    minutes.
    """

    answers_for_itself = True
    defaults = {
        "optimizer": "adam",
        "lr": 1e-3,
        "batch_size": 128,
        "epochs": 10,
        "augment": True,
    }

    def data(self, source: Source) -> Dataset:
        """The official batches or class folders; downloaded where they are nowhere."""
        return load_dataset("cifar10", source.folder, source.download)
