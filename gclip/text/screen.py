"""What the commands print, and where: answers on stdout, progress and complaints on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gclip.text.streams import printable, takes_every_letter

if TYPE_CHECKING:
    from rich.console import Console

    from gclip.text.table import TextTable

_PLAIN_WIDTH = 100
_PROSE_WIDTH = 100
"""Longer lines of prose are hard to read, however wide the terminal is."""


def width(*, stderr: bool = False) -> int:
    """How wide to write: COLUMNS where that is set, else the terminal; 100 into a file or pipe."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    stream = sys.stderr if stderr else sys.stdout
    try:
        return os.get_terminal_size(stream.fileno()).columns or _PLAIN_WIDTH
    except (OSError, ValueError, AttributeError):  # no terminal
        return _PLAIN_WIDTH


def prose_width() -> int:
    """How wide to fill sentences."""
    return min(width(), _PROSE_WIDTH)


def console(*, stderr: bool = False) -> Console:
    """A console `width` columns wide."""
    from rich.console import Console

    columns = width(stderr=stderr)
    return Console(stderr=stderr, width=columns, highlight=False, markup=False, emoji=False)


def echo(text: str = "") -> None:
    """One line of the answer, never wrapped, so that a path or a command can be copied."""
    print(printable(text, keep="\n\t"))


def echo_wrapped(text: str) -> None:
    """Sentences of the answer, filled to the terminal; indented lines, such as commands to copy,
    and empty ones stay as they are."""
    from gclip.text.table import fill

    for line in text.splitlines() or [""]:
        if not line or line.startswith(" "):
            echo(line)
            continue
        for part in fill(line, prose_width()):
            echo(part)


def note(text: str) -> None:
    """One line beside the answer."""
    print(printable(text, keep="\n\t"), file=sys.stderr, flush=True)


def echo_table(table: TextTable) -> None:
    """A table on stdout, as wide as there is room."""
    echo(table.text(width()))


def echo_json(value: Mapping[str, Any]) -> None:
    """An object on stdout, in strict JSON: NaN and infinities become null."""
    ascii_only = not takes_every_letter()
    print(json.dumps(_strict(value), indent=2, ensure_ascii=ascii_only, allow_nan=False))


def percent(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """``0.953`` as ``95.3``, with `sign` ``+95.3``; a dash where there is no value."""
    return decimal(None if value is None else 100 * value, digits, sign=sign)


def bytes_text(size: float) -> str:
    """``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def decimal(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """``0.953`` as ``1.0``, with `sign` ``+1.0``; never ``-0.0``; a dash without a value."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return f"+{text}" if sign and float(text) > 0 else text


def duration(seconds: float) -> str:
    """``75`` as ``1:15``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def plural(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    if hasattr(value, "item"):  # a number of numpy's
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
