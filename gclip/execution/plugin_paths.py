"""Can another process load a strategy, a problem and a model, and from where?

Worker processes find what ships with gclip and installed plugins by themselves, and import the
files and modules that they are given. What was written in a notebook cell, a console or the program
that is running exists in this process alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gclip.core import registry
from gclip.core.digest import ships_with_gclip
from gclip.core.players import parts_of
from gclip.errors import UsageError

if TYPE_CHECKING:
    from gclip.training import RunConfig


def plugins_of(configs: Iterable[RunConfig]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files and modules that a worker must load for these runs, and the names of their
    strategies, problems and models that it cannot load at all."""
    plugins: dict[str, None] = {}
    local: dict[str, None] = {}
    kinds = {(config.strategy, config.task, config.model): config for config in configs}.values()
    for name, module in dict.fromkeys(each for config in kinds for each in _outside(config)):
        loaded = sys.modules.get(module)
        file, spec = getattr(loaded, "__file__", None), getattr(loaded, "__spec__", None)
        if file is None or spec is None or module == "__main__":
            local[name] = None
        elif module.startswith("gclip_plugin_"):  # from a file, by `gclip.load_plugins`
            plugins[str(file)] = None
        else:
            plugins[module] = None
    return tuple(plugins), tuple(local)


def _outside(config: RunConfig) -> Iterator[tuple[str, str]]:
    """The names of what a run uses and does not ship with gclip, and their modules."""
    from gclip.training import models
    from gclip.training.tasks import problem_of

    for part in parts_of(registry.parse_for_run(config.strategy)):
        if not registry.ships_with_gclip(type(part)):
            yield part.name, type(part).__module__
    problem = problem_of(config.task)
    if not type(problem).__module__.startswith("gclip."):
        yield problem.name, type(problem).__module__
    if config.model:
        model = models.parse(config.model)[0]
        if not ships_with_gclip(models.get(model)):
            yield model, models.get(model).__module__


def workers_that_reach(local: tuple[str, ...], workers: int | None) -> int | None:
    """How many workers may be used where what `local` names exists in this process alone: one.

    Raises:
        UsageError: more were asked for.
    """
    if not local:
        return workers
    if workers not in (None, 1):
        raise UsageError(
            f"{', '.join(local)}: written in a notebook or in the running program, where worker "
            f"processes cannot load it, so workers must be 1, but got {workers}; for more, put it "
            'into a file and gclip.load_plugins("my_strategies.py")'
        )
    return 1
