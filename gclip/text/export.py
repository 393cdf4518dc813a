"""Tables for papers and other programs: as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gclip.errors import choose
from gclip.text.table import TextTable

TEXT = "text"
FORMATS = (TEXT, "markdown", "latex", "csv")
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{each: f"\\{each}" for each in "&%$#_{}"},
    "±": r"$\pm$", "×": r"$\times$", "≥": r"$\ge$", "≤": r"$\le$", "·": r"$\cdot$",
    "–": "--", "−": "$-$", "→": r"$\rightarrow$", "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$", "µ": r"$\mu$", "‖": r"$\|$", "<": r"\textless{}",
    ">": r"\textgreater{}",
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_\[\]|<>])")


def checked(format: str) -> str:
    """The name of a format.

    Raises:
        UsageError: there is no such format.
    """
    return choose(format, FORMATS, "table format")


def exported(
    table: TextTable, rows: Iterable[Mapping[str, Any]], notes: Sequence[str], format: str
) -> str:
    r"""A table in a format other than text.

    Args:
        table: as it is printed.
        rows: the same in numbers, which CSV has.
        notes: the sentences below it; CSV has none.
        format: ``markdown``, ``latex`` or ``csv``.

    Example:
        >>> from gclip.text.table import Column
        >>> table = TextTable(columns=[Column(heading="strategy", words=True), Column(heading="n")])
        >>> table.add("agc(clip_factor=0.02)", "10")
        >>> print(exported(table, [], ["Ten seeds."], "markdown"))
        | strategy | n |
        | :-- | --: |
        | agc(clip\_factor=0.02) | 10 |
        <BLANKLINE>
        Ten seeds.
    """
    if format == "markdown":
        return markdown(table, notes)
    return latex(table, notes) if format == "latex" else comma_separated(rows)


def markdown(table: TextTable, notes: Sequence[str] = ()) -> str:
    """A table as GitHub and most others read it, and the notes as paragraphs."""
    lines = [
        _piped(column.heading for column in table.columns),
        _piped((":--" if column.words else "--:" for column in table.columns), escape=False),
        *(_piped(row) for row in _plain(table)),
    ]
    return "\n\n".join(["\n".join(lines), *map(_markdown, notes)])


def latex(table: TextTable, notes: Sequence[str] = ()) -> str:
    """A ``tabular`` with the rules of ``booktabs``; the notes are comments, for the caption."""
    shape = "".join("l" if column.words else "r" for column in table.columns)
    lines = [
        r"% \usepackage{booktabs,amssymb}",
        rf"\begin{{tabular}}{{{shape}}}",
        r"\toprule",
        _ampersands(column.heading for column in table.columns),
        r"\midrule",
        *(_ampersands(row) for row in _plain(table)),
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {line}" for note in notes for line in _latex(note).splitlines()),
    ]
    return "\n".join(lines)


def comma_separated(rows: Iterable[Mapping[str, Any]]) -> str:
    """All rows with every column that is a number, a word or nothing; NaN and None are empty."""
    every = [dict(row) for row in rows]
    names = dict.fromkeys(
        name
        for row in every
        for name, value in row.items()
        if value is None or isinstance(value, str | int | float)
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in every:
        writer.writerow({k: None if v is None or v != v else v for k, v in row.items()})
    return text.getvalue().rstrip("\n")


def _plain(table: TextTable) -> list[list[str]]:
    """The rows without sections, each cell on one line."""
    return [[" ".join(cell.split()) for cell in row] for row in table.without_sections()]


def _piped(cells: Iterable[str], *, escape: bool = True) -> str:
    return f"| {' | '.join(_markdown(cell) if escape else cell for cell in cells)} |"


def _ampersands(cells: Iterable[str]) -> str:
    return f"{' & '.join(map(_latex, cells))} \\\\"


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
