"""What all commands share of Typer: flags take no value, and their help says none; no command waits
for what checks that a text is a text."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from gclip.cli.interrupts import AGAIN, tell


def _parameters(params: list[Any]) -> list[Any]:
    for each in params:
        if getattr(each, "is_bool_flag", False):
            each.metavar = ""  # Typer would say <bool>, as if a value were to follow
        if isinstance(getattr(each, "get_runtime_param", None), MethodType):
            each.get_runtime_param = partial(_Coercion, each.get_runtime_param)
    return params


class _Coercion:
    """Words and paths as they are. Typer loads pydantic, a fifth of a second, to make a text of a
    text; whatever is less plain is left to it."""

    def __init__(self, typers: Callable[[], Any]) -> None:
        self._typers = typers

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """What Typer makes of a parameter's value."""
        kind, info = param.type_descriptor.annotation, param.type_descriptor.parameter_info
        many = param.multiple or param.nargs != 1
        if value is None or (many and not value):
            return () if many else None
        plain = not many and info.parser is None and str(value).isascii()
        if plain and kind is str and isinstance(value, str):
            return value
        if plain and kind in (int, float) and type(value) is kind and info.min is info.max is None:
            return value  # the default
        if param.multiple and kind == list[str] and info.parser is None and _are_texts(value):
            return list(value)
        if plain and kind is Path and isinstance(value, str | Path) and _usable(value, info):
            return Path(value)
        return self._typers().coerce(value, param=param, ctx=ctx)


def _are_texts(values: Any) -> bool:
    return all(isinstance(value, str) and value.isascii() for value in values)


def _usable(path: str | Path, info: Any) -> bool:
    """Whether nothing that is asked of a path needs a look at it."""
    asked = info.exists or info.resolve_path or info.writable or info.allow_dash
    return not asked and (not os.path.lexists(path) or os.access(path, os.R_OK))


class Command(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As in Typer, but for `_parameters`."""
        return _parameters(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """As in Typer, which would say nothing of Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Exit(tell(error, AGAIN)) from None


class Group(TyperGroup):
    """A group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As in Typer, but for `_parameters`."""
        return _parameters(super().get_params(ctx))


class App(typer.Typer):
    """A Typer whose commands are of these classes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """As `typer.Typer.command`."""
        return super().command(name, **{"cls": Command, **settings})


def app_of(help: str, modules: Mapping[str, Sequence[str]], arguments: Sequence[str]) -> App:
    """A group of commands, of which only those are loaded that `arguments` may mean: those beside
    the one that they begin with, or all.

    Args:
        help: of the group.
        modules: the commands of each module of this package, in the order of the help.
        arguments: after the group's name.
    """
    app = App(no_args_is_help=True, help=help)
    asked = [module for module, names in modules.items() if set(arguments[:1]) & set(names)]
    for module in asked or modules:
        importlib.import_module(f"gclip.cli.{module}").add_to(app)
    return app
