"""The figures of a record: those that each of its parts names."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gclip.errors import UsageError, choose

if TYPE_CHECKING:
    from gclip.results.record import Record


_MOST_WORKERS = 61  # what Windows can wait for


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
    workers: int = 1,
) -> list[Path]:
    """Draw a record, a folder a part.

    Args:
        record: what is drawn.
        out: the folder; it is made.
        formats: of `gclip.figures.FORMATS`.
        only: these figures, of every part that has something for them; else those that it names.
        parts: these alone.
        style, width, dpi, title: as of `gclip.figures.draw_all`.
        workers: processes that draw at the same time; the files are the same. They know the figures
            of `gclip.figures` alone.

    Returns:
        The files.

    Raises:
        UsageError: an unknown name, or nothing could be drawn.
    """
    from gclip import figures
    from gclip.results.record import parts_of

    asked = None if only is None else [choose(name, figures.names(), "figure") for name in only]
    kinds = [choose(kind, figures.FORMATS, "figure format") for kind in formats]
    todo = [
        (part.name, part.figures if asked is None else asked) for part in parts_of(record, parts)
    ]
    painter = _Painter(record, Path(out), kinds, dpi, (style, width, title))
    workers = min(workers, len(todo), _MOST_WORKERS)
    if workers <= 1:
        found = [painter.draw(*part) for part in todo]
    else:
        # Started anew, not forked: whoever forks beside a thread may copy a lock for good.
        start = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, start, _begin, (painter,)) as pool:
            found = [*pool.map(_draw, *zip(*todo, strict=True))]
    files = [path for paths in found for path in paths]
    if not files:
        raise UsageError("the record has nothing for these figures")
    return files


@dataclass
class _Painter:
    """Draws one part after another of a record."""

    record: Record
    out: Path
    kinds: Sequence[str]
    dpi: int | None
    page: tuple[str, str | float | None, bool]

    def draw(self, part: str, names: Iterable[str]) -> list[Path]:
        """The files of those figures of a part that have something to show."""
        from gclip import figures
        from gclip.figures._page import on_page

        results, files = self.record.results(part), list[Path]()
        style, width, title = self.page
        with on_page(style, width, title):
            for name in names:
                if figures.applies(name, results.scored()):
                    figure = figures.draw(name, results, style=style, width=width, title=title)
                    files += [
                        figures.save(figure, self.out / part / f"{name}.{kind}", dpi=self.dpi)
                        for kind in self.kinds
                    ]
        return files


_painters: list[_Painter] = []


def _begin(painter: _Painter) -> None:
    """What a process draws with; Ctrl-C is its parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _painters.append(painter)


def _draw(part: str, names: Iterable[str]) -> list[Path]:
    return _painters[0].draw(part, names)
