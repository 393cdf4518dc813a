"""What all commands share of Typer: flags take no value, and their help says none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from gclip.cli.interrupts import AGAIN, tell


def _flags_without_type(params: list[Any]) -> list[Any]:
    for each in params:
        if getattr(each, "is_bool_flag", False):
            each.metavar = ""  # Typer would say <bool>, as if a value were to follow
    return params


class Command(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As in Typer, but for the flags."""
        return _flags_without_type(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """As in Typer, which would say nothing of Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Exit(tell(error, AGAIN)) from None


class Group(TyperGroup):
    """A group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As in Typer, but for the flags."""
        return _flags_without_type(super().get_params(ctx))


class App(typer.Typer):
    """A Typer whose commands are of these classes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """As `typer.Typer.command`."""
        return super().command(name, **{"cls": Command, **settings})
