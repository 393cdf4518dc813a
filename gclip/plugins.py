"""Strategies from outside: a Python file, or a module on the path."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from gclip import registry
from gclip.errors import UsageError
from gclip.strategy import Strategy

if TYPE_CHECKING:
    from gclip.chaining import Chain


def load_plugins(source: str | Path) -> tuple[str, ...]:
    """Import a file (``"my_strategies.py"``) or module (``"my.module"``) that registers strategies.

    Loading the same file again reloads it, so an edited strategy takes effect.

    Returns:
        The names it registered.

    Raises:
        UsageError: the file or module is missing, fails to import, or registers nothing.
    """
    registry.names()  # built-ins first: a plugin that takes one of their names must be told
    text = str(source)
    is_file = text.endswith(".py") or "/" in text or "\\" in text
    try:
        module = _from_file(Path(text)) if is_file else importlib.import_module(text)
    except UsageError as error:
        raise UsageError(f"the plugin {text!r} does not load: {error}") from error
    except ModuleNotFoundError as error:
        missing = "no such module" if error.name == text else str(error)
        raise UsageError(
            f"the plugin {text!r} does not load: {missing}; give a file ending in .py or a module "
            "that Python can import"
        ) from error
    except Exception as error:
        raise UsageError(
            f"the plugin {text!r} does not load: {type(error).__name__}: {error}{_line(error)}"
        ) from error
    found = tuple(
        name for name in registry.names() if registry.get(name).__module__ == module.__name__
    )
    if not found:
        raise UsageError(
            f"the plugin {text!r} registers no strategy; decorate a class with "
            '@gclip.register("name")'
        )
    return found


def code_digest(strategy: Strategy | Chain) -> str:
    """12 hex digits that change when a strategy's code does, though not when its comments do.

    Part of a run's identity, so that after an edit only that strategy's runs are made again.
    Covers the module that defines the class and those of its bases outside ``gclip.strategy``.
    """
    parts = getattr(strategy, "strategies", (strategy,))
    modules = sorted(
        {
            base.__module__
            for part in parts
            for base in type(part).__mro__
            if issubclass(base, Strategy) and base is not Strategy
        }
    )
    text = "\n".join(_code(sys.modules[name]) for name in modules)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError("there is no such file")
    path = path.resolve()
    name = f"gclip_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
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


def _code(module: ModuleType) -> str:
    """A module's code in one normal form, without comments and docstrings."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, IndentationError):
        return module.__name__  # defined in a console or a frozen program: no source to read
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _line(error: Exception) -> str:
    """`` (line 3 of my_strategies.py)``: where in the plugin it went wrong."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename.endswith(".py") and "gclip_plugin" in str(
            trace.tb_frame.f_globals.get("__name__", "")
        ):
            place = f" (line {trace.tb_lineno} of {Path(code.co_filename).name})"
        trace = trace.tb_next
    return place
