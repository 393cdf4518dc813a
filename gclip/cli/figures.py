"""``gclip figures``: the figures of a store, drawn again; and how other commands save theirs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.options import FiguresFolder, Json, StoreFolder
from gclip.text import screen
from gclip.text.progress import Display, load
from gclip.text.table import Column, TextTable

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
            show_default="all that have something to show",
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="STRATEGY",
            help="A name or a spelling that alone is drawn (a name: all its spellings); again for "
            "more.",
            show_default="all",
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Of the figures: png, svg or pdf; again for more.",
            show_default="png and svg",
        ),
    ] = None,
    style: Annotated[
        str,
        typer.Option("--style", metavar="paper|slides|dark", help="What the figures are for."),
    ] = "paper",
    width: Annotated[
        str | None,
        typer.Option(
            "--width",
            metavar="column|page|LENGTH",
            help="8.5 cm, 17.8 cm, or a length such as 3.25in; text has the same size at any.",
            show_default="column; 10in of slides",
        ),
    ] = None,
    dpi: Annotated[
        int | None, typer.Option("--dpi", help="Pixels an inch of a PNG.", show_default="300")
    ] = None,
    no_title: Annotated[
        bool,
        typer.Option("--no-title", help="Leave title and explanation to the caption of a paper."),
    ] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin",
            metavar="FILE|MODULE",
            help="Python file or module that registers strategies, or is a figure, draw(results); "
            "again for more.",
            show_default="none",
        ),
    ] = None,
    list_them: Annotated[
        bool, typer.Option("--list", help="List all figures, and draw none.")
    ] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record",
            metavar="DIR",
            help="Folder of the record to draw instead of a store, a folder a part.",
            show_default="none",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Draw the figures of a store, without training: one folder a comparison, one a study.

    \b
    Examples:
      gclip figures --list
      gclip figures --store runs --figure scores --figure forest
      gclip figures --store runs --out paper --format pdf --width page --no-title
      gclip figures --store runs --style dark -s none -s norm -s agc
      gclip figures --store runs --plugin my_figure.py --figure my_figure
      gclip figures --record studies/records/paper --out figures --format pdf
    """
    load("torch")
    from gclip import figures as drawings
    from gclip.errors import UsageError, choose
    from gclip.figures._record import draw_record
    from gclip.results import Store
    from gclip.results.record import Record

    for each in plugin or ():
        drawings.add_if_figure(each)
    if list_them:
        _list(json)
        return

    for name in figure or ():
        choose(name, drawings.names(), "figure")
    if record is not None and strategy:
        raise UsageError("a record's parts are drawn whole; leave out -s beside --record")
    look: dict[str, Any] = {"style": style, "width": width, "dpi": dpi, "title": not no_title}
    look |= {"only": figure or None, "formats": format or ("png", "svg")}
    source = Store(store) if record is None else Record.read(record)
    with Display() as display:
        display.load("pandas", "seaborn")
        display.doing("drawing")
        if isinstance(source, Record):
            files = draw_record(source, out or Path("figures"), **look)
        else:
            files = drawings.draw_all(source, out or store / "figures", strategies=strategy, **look)
    if json:
        screen.echo_json({"figures": [str(path) for path in files]})
        return
    for path in files:
        screen.echo(str(path))


def _list(json: bool) -> None:
    """Every figure with what it asks."""
    from gclip import figures as drawings

    found = {name: drawings.describe(name) for name in drawings.names()}
    if json:
        screen.echo_json({"figures": found})
        return
    table = TextTable(
        columns=[Column(heading="figure", words=True), Column(heading="shows", words=True)]
    )
    for name, text in found.items():
        table.add(name, text)
    screen.echo_table(table)


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save a figure as PNG and as SVG; the files."""
    from gclip.figures import save

    return [save(figure, folder / f"{name}.{kind}") for kind in ("png", "svg")]
