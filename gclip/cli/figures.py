"""``gclip figures``: the figures of a store, drawn again without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gclip.cli import screen
from gclip.cli.options import StoreFolder


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("figures")(figures)


def figures(
    store: StoreFolder = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for the figures; STORE/figures."),
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option("--figure", metavar="NAME", help="Draw this one only; again for more."),
    ] = None,
) -> None:
    """Draw the figures of a store again, as PNG and SVG, without training.

    A store with several settings (another task, another learning rate) gets one folder for each.

    \b
    Examples:
      gclip figures --store runs
      gclip figures --store runs --out paper --figure accuracy
    """
    from gclip import figures as drawings
    from gclip.errors import choose
    from gclip.results import Store

    for name in figure or ():
        choose(name, drawings.names(), "figure")
    kept = Store(store)
    for path in drawings.draw_all(kept, out or store / "figures", only=figure or None):
        screen.say(str(path))
