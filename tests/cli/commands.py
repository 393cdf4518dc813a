"""All commands and groups of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from gclip.cli.root import whole


def commands(command: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each as ``study run``, and as Typer has it; the first is ``gclip`` itself."""
    command = typer.main.get_command(whole()) if command is None else command
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}".strip())
