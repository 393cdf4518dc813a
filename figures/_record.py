"""The figures of a record: those that each of its parts names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gclip.errors import UsageError, choose

if TYPE_CHECKING:
    from gclip.results.record import Record


def draw_record(
    record: Record,
    out: str | os.PathLike[str],
    *,
    formats: Iterable[str] = ("png",),
    only: Iterable[str] | None = None,
    parts: Iterable[str] = (),
    style: str = "paper",
    width: str | float | None = None,
    dpi: int | None = None,
    title: bool = True,
) -> list[Path]:
    """Draw a record, a folder a part.

    Args:
        record: what is drawn.
        out: the folder; it is made.
        formats: of `gclip.figures.FORMATS`.
        only: these figures, of every part that has something for them; else those that it names.
        parts: these alone.
        style, width, dpi, title: as of `gclip.figures.draw_all`.

    Returns:
        The files.

    Raises:
        UsageError: an unknown name, or nothing could be drawn.
    """
    from gclip import figures
    from gclip.figures._page import on_page
    from gclip.results.record import parts_of

    asked = None if only is None else [choose(name, figures.names(), "figure") for name in only]
    kinds = [choose(kind, figures.FORMATS, "figure format") for kind in formats]
    files: list[Path] = []
    with on_page(style, width, title):
        for part in parts_of(record, parts):
            results = record.results(part.name)
            for name in part.figures if asked is None else asked:
                if figures.applies(name, results.scored()):
                    figure = figures.draw(name, results, style=style, width=width, title=title)
                    files += [
                        figures.save(figure, Path(out, part.name, f"{name}.{kind}"), dpi=dpi)
                        for kind in kinds
                    ]
    if not files:
        raise UsageError("the record has nothing for these figures")
    return files
