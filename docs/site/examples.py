"""Examples of docstrings as code blocks: Markdown takes the ``>>>`` of doctest for quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"(?:^|(?<=\n\n))(>>> (?:.|\n(?!\n|$))*)")


class FencedExamples(griffe.Extension):
    """Fences every paragraph of a docstring that begins with ``>>>``."""

    def on_object(self, *, obj: griffe.Object, **rest: Any) -> None:
        """Called once an object has been read."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The text, its examples within ```` ```pycon ````, and no double colon before other code."""
    fences = _EXAMPLE.sub(lambda match: f"```pycon\n{match.group(1).rstrip()}\n```", text)
    return fences.replace("::\n\n", ":\n\n")
