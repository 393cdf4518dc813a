"""Tables for terminals of any width: every table that gclip prints is laid out here.

A number is never cut and a spelling such as ``agc(clip_factor=0.1585)`` never split. Where a table
is too wide, in this order: words wrap at spaces, columns that may be left out go (and are named
below), numbers part from their intervals, and at last each row becomes a block of lines.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

GAP = 2
"""Blanks between columns."""
ELSEWHERE = "--json has them"
_INDENT = "  "
_SECTION = "\0"
_SEPARATOR = "; "


@dataclass(frozen=True, kw_only=True)
class Column:
    """How one column is shown.

    Attributes:
        heading: above it; wraps at spaces.
        words: text on the left, which wraps at spaces; else numbers on the right.
        leaves: 0 stays; of the others the highest is the first to be left out for lack of room.
        least: words narrower than this are not worth a column, where they are that long.
    """

    heading: str
    words: bool = False
    leaves: int = 0
    least: int = 0


@dataclass(kw_only=True)
class TextTable:
    """Rows of text under columns; `text` lays them out.

    Attributes:
        columns: from left to right. The first names its row.
        elsewhere: where the values of columns that were left out are.
        rows: one text a column; a line break in it stays one.
    """

    columns: Sequence[Column]
    elsewhere: str = ELSEWHERE
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """One more row. Cells that are left out at its end are empty."""
        self.rows.append((*cells, *[""] * (len(self.columns) - len(cells))))

    def section(self, title: str) -> None:
        """A line of its own, above the rows that follow."""
        self.rows.append((_SECTION, title))

    def text(self, width: int) -> str:
        """The table in lines of at most ``width`` characters, but for a word longer than that."""
        shown = list(range(len(self.columns)))
        removable = sorted((i for i in shown if self.columns[i].leaves), key=self._leaves)
        unbroken = dict.fromkeys(shown, True)
        while not self._fits(shown, unbroken, width):
            if removable:
                shown.remove(removable.pop(0))
            elif any(unbroken.values()):
                unbroken = dict.fromkeys(unbroken, False)
            else:
                return "\n".join(self._blocks(width))
        lines = self._grid(shown, unbroken, width)
        left_out = [self.columns[i].heading for i in range(len(self.columns)) if i not in shown]
        if left_out:
            needed = _total_width(self._smallest(i, True) for i in range(len(self.columns)))
            sentence = (
                f"No room for: {', '.join(left_out)}. A terminal of {needed} columns (or "
                f"COLUMNS={needed}) shows them, and {self.elsewhere}."
            )
            lines += ["", *fill(sentence, width)]
        return "\n".join(lines)

    def _leaves(self, index: int) -> int:
        return -self.columns[index].leaves

    def without_sections(self) -> list[tuple[str, ...]]:
        """The rows, one text a column."""
        return [row for row in self.rows if row[0] != _SECTION]

    def _cells(self, index: int) -> list[str]:
        return [row[index] for row in self.without_sections()]

    def _tokens(self, index: int, text: str, whole: bool) -> list[str]:
        if self.columns[index].words:
            return tokens(text)
        return [text] if whole else _numbers(text)

    def _smallest(self, index: int, whole: bool) -> int:
        """The least width of a column: its longest word, or number."""
        column = self.columns[index]
        longest = max((len(word) for word in tokens(column.heading)), default=0)
        for cell in self._cells(index):
            for line in cell.splitlines():
                wanted = min(column.least, len(line))
                longest = max(longest, wanted, *map(len, self._tokens(index, line, whole)), 0)
        return longest

    def _natural(self, index: int) -> int:
        lines = [line for cell in self._cells(index) for line in cell.splitlines()]
        return max(map(len, (self.columns[index].heading, *lines)))

    def _fits(self, places: Sequence[int], whole: dict[int, bool], width: int) -> bool:
        return _total_width(self._smallest(i, whole[i]) for i in places) <= width

    def _widths(self, places: Sequence[int], whole: dict[int, bool], width: int) -> list[int]:
        """As wide as can be, and alike where there is not room for all."""
        least = [self._smallest(i, whole[i]) for i in places]
        # A heading may wrap rather than make a column of short numbers wide.
        most = [max(small, self._natural(i)) for small, i in zip(least, places, strict=True)]
        cap = max(most)
        while _total_width(_capped(least, most, cap)) > width:
            cap -= 1
        return _capped(least, most, cap)

    def _grid(self, places: Sequence[int], whole: dict[int, bool], width: int) -> list[str]:
        widths = self._widths(places, whole, width)
        columns = [self.columns[i] for i in places]
        heads = [wrap(tokens(c.heading), size) for c, size in zip(columns, widths, strict=True)]
        high = max(map(len, heads))
        lines = self._lines([[""] * (high - len(h)) + h for h in heads], columns, widths)
        lines.append("─" * _total_width(widths))
        for row in self.rows:
            if row[0] == _SECTION:
                lines += ["", *fill(row[1], width)]
                continue
            cells = [
                [
                    part
                    for line in row[i].splitlines()
                    for part in wrap(self._tokens(i, line, whole[i]), size)
                ]
                for i, size in zip(places, widths, strict=True)
            ]
            lines += self._lines(cells, columns, widths)
        return lines

    @staticmethod
    def _lines(
        cells: Sequence[Sequence[str]], columns: Sequence[Column], widths: Sequence[int]
    ) -> list[str]:
        lines = []
        for number in range(max(map(len, cells), default=0)):
            parts = []
            for cell, column, size in zip(cells, columns, widths, strict=True):
                text = cell[number] if number < len(cell) else ""
                parts.append(f"{text:<{size}}" if column.words else f"{text:>{size}}")
            lines.append((" " * GAP).join(parts).rstrip())
        return lines

    def _blocks(self, width: int) -> list[str]:
        """Each row as lines of its own: what it is about, then headings with their values."""
        lines: list[str] = []
        for row in self.rows:
            if row[0] == _SECTION:
                lines += ["", *fill(row[1], width)] if lines else fill(row[1], width)
                continue
            first = self.columns[0]
            title = row[0] if first.words else f"{first.heading} {row[0]}"
            lines += [""] if lines else []
            lines += _own_lines(title, width, "")
            items = [
                f"{column.heading} {' '.join(cell.split())}".strip()
                for column, cell in zip(self.columns[1:], row[1:], strict=True)
                if cell
            ]
            lines += _packed(items, width)
        return lines


def tokens(text: str) -> list[str]:
    """The parts of a line of words that are never split: words, and spellings with their brackets.

    >>> tokens("like norm(max_norm=1, scope=unit) here")
    ['like', 'norm(max_norm=1, scope=unit)', 'here']
    """
    parts: list[str] = []
    depth, start, before = 0, 0, ""
    for position, letter in enumerate(text):
        if letter == "(" and (depth or before.isalnum() or before == "_"):
            depth += 1
        elif letter == ")" and depth:
            depth -= 1
        elif letter == " " and not depth:
            parts.append(text[start:position])
            start = position + 1
        before = letter
    parts.append(text[start:])
    if depth:
        parts = text.split()  # a bracket that nobody closes protects nothing
    return _joined(part for part in parts if part)


def _joined(parts: Iterable[str]) -> list[str]:
    """A number stays with its unit, and an option with its number."""
    tokens_: list[str] = []
    for part in parts:
        unit = part[0] == "%" and tokens_ and tokens_[-1][-1].isdigit()
        value = part[0].isdigit() and tokens_ and tokens_[-1].startswith("--")
        if unit or value:
            tokens_[-1] += f" {part}"
        else:
            tokens_.append(part)
    return tokens_


def _numbers(text: str) -> list[str]:
    """Where a cell of numbers may be broken: not between a number and its unit or its ±."""
    glued = re.sub(r" (?=[%·▲▼])|(?<=±) ", "\0", text)
    return [part.replace("\0", " ") for part in glued.split()]


def wrap(words: Sequence[str], width: int) -> list[str]:
    """The words in lines of at most ``width`` characters; one that is longer has its own line."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def fill(text: str, width: int) -> list[str]:
    """A paragraph in lines, broken at spaces outside of spellings only."""
    return wrap(tokens(text), width)


def _own_lines(text: str, width: int, indent: str) -> list[str]:
    """One item on lines of its own; a spelling that is too long for one breaks between fields."""
    return textwrap.wrap(
        " ".join(text.split()),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}{_INDENT}",
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def _packed(items: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for item in items:
        if len(_INDENT) + len(item) > width:
            lines += _own_lines(item, width, _INDENT)
        elif lines and len(lines[-1]) + len(_SEPARATOR) + len(item) <= width:
            lines[-1] += f"{_SEPARATOR}{item}"
        else:
            lines.append(f"{_INDENT}{item}")
    return lines


def _capped(least: Sequence[int], most: Sequence[int], cap: int) -> list[int]:
    return [min(large, max(small, cap)) for small, large in zip(least, most, strict=True)]


def _total_width(widths: Iterable[int]) -> int:
    every = list(widths)
    return sum(every) + GAP * (len(every) - 1)
