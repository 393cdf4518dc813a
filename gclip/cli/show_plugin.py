"""What ``gclip show`` says about a problem or a model."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gclip.text import screen
from gclip.text.table import Column, TextTable, fill

if TYPE_CHECKING:
    from gclip.describe.facts import Facts


def show_plugin(kind: str, facts: Facts, *, as_json: bool) -> None:
    """Print all that there is to say about one."""
    shown = facts["shown"]
    if as_json:
        screen.echo_json(shown)
        return
    screen.echo(f"{shown['name']} · {kind}")
    if shown["spelling"] != shown["name"]:
        screen.echo(f"here: {shown['spelling']}")
    screen.echo()
    for line in wrapped(shown["doc"]):
        screen.echo(line)
    screen.echo()
    for name, fact in facts["aside"].items():
        if fact:
            for line in fill(f"{name}: {fact}", screen.prose_width()):
                screen.echo(line)
    screen.echo()
    if facts["table"]:
        headings, *rows = facts["table"]
        table = TextTable(columns=[Column(heading=each, words=True) for each in headings])
        for row in rows:
            table.add(*row)
        screen.echo_table(table)
        screen.echo()
    screen.echo(shown["example"])


def wrapped(body: str, width: int | None = None) -> Iterator[str]:
    """A docstring for the terminal: paragraphs filled, blocks and lists as they are."""
    width = screen.prose_width() if width is None else width
    for place, paragraph in enumerate(re.split(r"\n\s*\n", body.replace("``", "`"))):
        if place:
            yield ""
        lines = paragraph.splitlines()
        if any(line.startswith((" ", "\t", "- ", "* ", "1. ")) for line in lines):
            yield from (line.rstrip() for line in lines)
        else:
            yield from textwrap.wrap(
                " ".join(paragraph.split()), width, break_long_words=False, break_on_hyphens=False
            )
