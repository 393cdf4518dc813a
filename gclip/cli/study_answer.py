"""A study run under the eyes of a display, and its answer printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gclip.cli.figures import save_figure
from gclip.cli.interrupts import going_on, interruptible
from gclip.execution.progress import RunsDisplay
from gclip.text import screen
from gclip.text.export import TEXT, exported
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    from gclip.execution import Event
    from gclip.tuning.study import Answer, Request


class _OpenDisplay(RunsDisplay):
    """A display that learns how many runs there are from the runs themselves."""

    def __call__(self, event: Event) -> None:
        if event.kind in ("queued", "cached"):
            self.total += 1
        super().__call__(event)


def run_and_draw(
    request: Request, answer: Callable[[Request], Answer], run_count: int | None, out: Path
) -> tuple[Answer, list[Path]]:
    """Answer a request under the eyes of a display, and draw the answer's figures.

    Args:
        request: what is asked; its runs are listened to here.
        answer: trains, reads and compares.
        run_count: how many runs that will be; None where nobody knows.
        out: the folder for the figures.

    Returns:
        The answer, and the figures' files, PNG and SVG.
    """
    then = "the answer and its figures"
    display = _OpenDisplay(then=then) if run_count is None else RunsDisplay(run_count, then=then)

    def message() -> str:
        where = request.store.path
        goes_on = going_on(where)
        return f"the runs that ended are kept in {where}; the same command goes on{goes_on}"

    with interruptible(message), display:
        execution = dataclasses.replace(request.execution, listener=display)
        answered = answer(dataclasses.replace(request, execution=execution))
        files: list[Path] = []
        for name, draw in answered.figures.items():
            display.doing(f"drawing {name}")
            from gclip.figures._page import theme  # seaborn, which few studies wait for

            with theme():
                figure = draw()
            files += save_figure(figure, out, name)
    return answered, files


def show_answer(
    answer: Answer, files: Sequence[Path], json: bool, format: str = TEXT, **more: Any
) -> None:
    """Print an answer and name its figures, or its table alone in another format; exit with 1 where
    it is none."""
    if json:
        screen.echo_json(
            {
                **more,
                "rows": answer.rows,
                "notes": [note for note in answer.notes if note],
                "figures": [str(path) for path in files],
                **answer.more,
            }
        )
    elif format != TEXT:
        notes = [note for note in answer.notes if note]
        screen.echo(exported(table_of(answer.rows, answer.columns), answer.rows, notes, format))
    else:
        _print(answer, files)
    if not answer.ok:
        raise typer.Exit(1)


def _print(answer: Answer, files: Sequence[Path]) -> None:
    if answer.rows:
        screen.echo_table(table_of(answer.rows, answer.columns))
        if answer.notes:
            screen.echo()
    for note in answer.notes:
        screen.echo_wrapped(note)
    if files:
        names = ", ".join(dict.fromkeys(path.stem for path in files))
        screen.echo_wrapped(f"figures in {files[0].parent} (PNG and SVG): {names}")


def table_of(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> TextTable:
    """The table of an answer.

    Args:
        rows: of the answer.
        columns: heading to key.
    """
    table = TextTable(
        columns=[
            Column(heading=heading, words=any(_is_word(row.get(key)) for row in rows))
            for heading, key in columns.items()
        ]
    )
    for row in rows:
        table.add(*(_cell(row.get(key)) for key in columns.values()))
    return table


def _is_word(value: Any) -> bool:
    """A text with no figure in front: it belongs on the left of its column. A dash is none."""
    text = value.lstrip("+-×<>–").lstrip() if isinstance(value, str) else ""
    return bool(text) and not text[0].isdigit()


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
