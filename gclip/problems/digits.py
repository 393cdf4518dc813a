"""1,797 images of handwritten digits: embedded, so that a comparison needs no network."""

from __future__ import annotations

from dataclasses import dataclass

import gclip
from gclip.errors import UsageError
from gclip.training import digits
from gclip.training.dataset import Dataset
from gclip.training.problem import Source
from gclip.training.supervised import Supervised


@gclip.register_problem("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(Supervised):
    """Recognise handwritten digits (1,797 real images, scikit-learn's, 8 × 8 made 32 × 32).

    The defaults are near the edge of stability: without clipping most seeds diverge to chance.
    """

    answers_for_itself = True

    def data(self, source: Source) -> Dataset:
        """The embedded images; no folder is looked at."""
        if source.folder is not None:
            raise UsageError(
                f"task digits is embedded and takes no data, but got {str(source.folder)!r}; "
                "images of your own go with task images"
            )
        return digits.load()
