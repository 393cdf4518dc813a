"""``gclip figures``: the figures of a store, drawn again; and how other commands save theirs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gclip.cli.options import FiguresFolder, StoreFolder
from gclip.text import screen
from gclip.text.progress import Display, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("figures")(figures)


def figures(
    store: StoreFolder = Path("runs"),
    out: FiguresFolder = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(
            "--figure",
            metavar="NAME",
            help="Draw this one only; again for more.",
            show_default="all",
        ),
    ] = None,
) -> None:
    """Draw the figures of a store again, as PNG and SVG, without training.

    A store with several settings (another task, another learning rate) gets one folder for each.

    \b
    Examples:
      gclip figures --store runs
      gclip figures --store runs --out paper --figure accuracy
    """
    load("torch")
    from gclip import figures as drawings
    from gclip.errors import choose
    from gclip.results import Store

    for name in figure or ():
        choose(name, drawings.names(), "figure")
    opened = Store(store)
    with Display() as display:
        display.load("pandas", "seaborn")
        display.doing("drawing")
        files = drawings.draw_all(opened, out or store / "figures", only=figure or None)
    for path in files:
        screen.echo(str(path))


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save a figure as PNG and as SVG; the files."""
    from gclip.figures import save

    return [save(figure, folder / f"{name}.{kind}") for kind in ("png", "svg")]
