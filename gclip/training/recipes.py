"""Settings to start from: each task's defaults, and recipes of the field by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gclip.errors import choose
from gclip.training.config import RunConfig
from gclip.training.tasks import problem_of


def task_defaults(task: str) -> RunConfig:
    """The settings a task starts from: its problem's `defaults`.

    ``digits``: `RunConfig()`, near the edge of stability. ``cifar10``: Adam at 1e-3, batch 128,
    ten epochs, flips and crops.

    Raises:
        UsageError: an unknown task.
    """
    return RunConfig(task=task, **problem_of(task).defaults)


class Recipes(Mapping[str, RunConfig]):
    """Named settings from the field's literature, made when asked for."""

    _SETTINGS: dict[str, dict[str, Any]] = {  # noqa: RUF012 - a constant
        # The image-classifier tutorial that clipping experiments start from.
        "tutorial": {
            "task": "cifar10",
            "optimizer": "adam",
            "lr": 1e-3,
            "batch_size": 4,
            "epochs": 10,
            "normalize": "half",
            "strategy": "value(clip_value=1)",
        },
    }

    def __getitem__(self, name: str) -> RunConfig:
        return RunConfig(**self._SETTINGS[choose(name, self._SETTINGS, "recipe")])

    def __contains__(self, name: object) -> bool:
        return name in self._SETTINGS

    def __iter__(self) -> Iterator[str]:
        return iter(self._SETTINGS)

    def __len__(self) -> int:
        return len(self._SETTINGS)


recipes = Recipes()
