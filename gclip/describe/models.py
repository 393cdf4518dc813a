"""One model's description: its settings, and what inputs it takes, found by building it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gclip.errors import UsageError
from gclip.training import models
from gclip.training.contract.model_subject import ModelSubject
from gclip.training.models.settings import Setting, settings_of

_KINDS = {1: "features", 2: "sequences", 3: "images"}


@dataclass(frozen=True)
class ModelDescription:
    """What there is to say about a registered model. Its inputs are tried when first asked for."""

    name: str

    @property
    def doc(self) -> str:
        """The docstring of its function, without the indentation of the code."""
        return inspect.cleandoc(models.get(self.name).__doc__ or "")

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring, on one line."""
        return " ".join(self.doc.partition("\n\n")[0].split())

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Its settings by name."""
        return settings_of(models.get(self.name))

    @cached_property
    def _subject(self) -> ModelSubject | None:
        try:
            return ModelSubject(self.name)
        except UsageError:
            return None  # of inputs that are none of those tried

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it takes, as far as a few shapes tell: ``images``, ``sequences``, ``features``."""
        shapes = () if self._subject is None else self._subject.inputs
        return tuple(dict.fromkeys(_KINDS[len(shape)] for shape in shapes))

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "name": self.name,
            "summary": self.summary,
            "settings": [
                {
                    "name": name,
                    "default": setting.default,
                    "types": [kind.__name__ for kind in setting.kinds],
                    "choices": list(setting.choices) or None,
                }
                for name, setting in self.settings.items()
            ],
            "inputs": list(self.inputs),
        }


def describe_model(name: str) -> ModelDescription:
    """What there is to say about the model `name`.

    Raises:
        UsageError: there is none, with a suggestion.
    """
    models.get(name)
    return ModelDescription(name)
