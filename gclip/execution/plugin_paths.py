"""Can another process load a strategy, and from where?

Worker processes find built-in strategies and installed plugins by themselves, and import the files
and modules that they are given. A strategy that was written in a notebook cell, a console or the
program that is running exists in this process alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from gclip.core import registry
from gclip.core.strategy import Chain
from gclip.errors import UsageError


def plugins_of(spellings: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files and modules that a worker must load for these strategies, and the names of those
    strategies that it cannot load at all."""
    plugins: dict[str, None] = {}
    local: dict[str, None] = {}
    for text in spellings:
        parsed = registry.parse(text)
        for part in parsed.strategies if isinstance(parsed, Chain) else (parsed,):
            if registry.ships_with_gclip(type(part)):
                continue
            module = type(part).__module__
            loaded = sys.modules.get(module)
            file, spec = getattr(loaded, "__file__", None), getattr(loaded, "__spec__", None)
            if file is None or spec is None or module == "__main__":
                local[part.name] = None
            elif module.startswith("gclip_plugin_"):  # from a file, by `gclip.load_plugins`
                plugins[str(file)] = None
            else:
                plugins[module] = None
    return tuple(plugins), tuple(local)


def workers_that_reach(local: tuple[str, ...], workers: int | None) -> int | None:
    """How many workers may be used where the strategies `local` exist in this process alone: one.

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
