"""Strategies, problems and models from outside: a Python file, or a module on the path."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from gclip.core import registry
from gclip.core.files import what_is_at
from gclip.core.named_registry import registries
from gclip.core.source_location import last_place
from gclip.errors import UsageError


def load_plugins(source: str | Path) -> tuple[str, ...]:
    """Import a file (``"my_plugin.py"``) or module (``"my.module"``) that registers strategies,
    problems or models.

    Loading the same file again reloads it, so an edited one takes effect.

    Returns:
        The names it registered: strategies first.

    Raises:
        UsageError: the file or module is missing, fails to import, or registers nothing.
    """
    return tuple(name for kind in load_by_kind(source).values() for name in kind)


def load_by_kind(source: str | Path) -> dict[str, tuple[str, ...]]:
    """As `load_plugins`, the names by kind: ``{"strategy": ("mine",), "problem": ()}``."""
    module = import_plugin(source)
    found = registered_by(module.__name__)
    if not any(found.values()):
        raise UsageError(
            f"the plugin {str(source)!r} registers no strategy, problem or model; decorate a class "
            'with @gclip.register("name") or @gclip.register_problem("name"), or a function with '
            '@gclip.register_model("name")'
        )
    return found


def import_plugin(source: str | Path) -> ModuleType:
    """Import a plugin's file or module, whatever it may register.

    Raises:
        UsageError: it is missing, or fails to import.
    """
    registry.names()  # built-ins first: a plugin that takes one of their names must be told
    text = str(source)
    is_file = text.endswith(".py") or "/" in text or "\\" in text
    try:
        return _from_file(Path(text)) if is_file else importlib.import_module(text)
    except UsageError as error:
        raise UsageError(f"the plugin {text!r} does not load: {error}{_line(error)}") from error
    except SystemExit as error:
        raise UsageError(
            f"the plugin {text!r} does not load: it ends the program{_line(error)}; a plugin is "
            'imported, so keep what a script does under if __name__ == "__main__":'
        ) from error
    except ModuleNotFoundError as error:
        missing = "no such module" if error.name == text else f"{error}{_line(error)}"
        raise UsageError(
            f"the plugin {text!r} does not load: {missing}; give a file ending in .py or a module "
            "that Python can import"
        ) from error
    except Exception as error:
        raise UsageError(
            f"the plugin {text!r} does not load: {type(error).__name__}: {error}{_line(error)}"
        ) from error


def registered_by(module: str) -> dict[str, tuple[str, ...]]:
    """What a module has registered, by kind: ``{"strategy": ("mine",), "problem": ()}``."""
    strategies = tuple(name for name in registry.names() if registry.get(name).__module__ == module)
    return {
        "strategy": strategies,
        **{each.kind: each.of_module(module) for each in registries()},
    }


def _from_file(path: Path) -> ModuleType:
    if not os.path.isfile(path):
        found = what_is_at(path)
        raise UsageError("there is no such file" if found == "not there" else f"it is {found}")
    path = path.resolve()
    name = f"gclip_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    return import_file(name, path)


def import_file(name: str, path: Path) -> ModuleType:
    """Import a file as the module `name`, anew if that is there already.

    Raises:
        UsageError: it is no Python file.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _line(error: BaseException) -> str:
    """`` (line 3 of my_strategies.py)``: where in the plugin it went wrong."""
    place = last_place(error, outside=str(Path(__file__).parents[1]))
    return f" ({place})" if place else ""
