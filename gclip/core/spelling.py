"""Strategies as text: ``agc(clip_factor=0.02, scope=tensor)`` on the command line and in files.

Grammar::

    call  = name [ "(" [ item { "," item } ] ")" ]
    item  = name "=" value | call          (a bare call only inside chain(...))
          | name "=" call                  (only inside players(...))
    value = number | word | quoted text | schedule
    schedule = shape "(" number "," number [ "," "steps" "=" number ] ")"

`spell` writes only what differs from the defaults, and ``parse(spell(s)) == s`` for every
strategy.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from gclip.core.fields import fields_of
from gclip.core.schedules import SHAPES, Schedule, number_text
from gclip.errors import UsageError, unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.*-]))"
    r"|(?P<word>[-+]?[A-Za-z_][\w.\-/]*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<mark>[(),=]))"
)
WORDS = {"true": True, "false": False, "none": None, "inf": float("inf"),
         "-inf": float("-inf"), "+inf": float("inf"), "nan": float("nan")}  # fmt: skip


_EXAMPLE = "agc(clip_factor=0.02, scope=tensor)"


class Call(NamedTuple):
    """A parsed spelling: a name, its named values, and the calls inside a ``chain(...)``."""

    name: str
    named: dict[str, Any]
    inner: tuple[Call, ...]


def read(
    text: str, *, what: str = "strategy", example: str = "agc(clip_factor=0.02, scope=tensor)"
) -> Call:
    """Parse a spelling without looking the name up.

    Args:
        text: the spelling.
        what: is spelled, for the sentences: a ``strategy``, a ``model``.
        example: of one.

    Raises:
        UsageError: where the text does not follow the grammar, showing the place.
    """
    if not isinstance(text, str):
        raise UsageError(f"a {what} is spelled as text like {example!r}, not {text!r}")
    reader = _Reader(text, what, example)
    call = reader.call()
    if reader.peek() != ("end", ""):
        reader.fail("the text should end")
    return call


def spell(name: str, settings: DataclassInstance) -> str:
    """The shortest spelling that `gclip.parse` reads back as an equal strategy."""
    values = ((info, getattr(settings, info.name)) for info in fields_of(type(settings)))
    shown = [f"{info.name}={_value(value)}" for info, value in values if value != info.default]
    return f"{name}({', '.join(shown)})" if shown else name


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return number_text(value) if isinstance(value, float) else str(value)


class _Reader:
    def __init__(self, text: str, what: str, example: str) -> None:
        self.text, self.what, self.example = text, what, example
        self.place = 0

    def peek(self) -> tuple[str, str]:
        if not self.text[self.place :].strip():
            return ("end", "")
        match = _TOKEN.match(self.text, self.place)
        if match is None:
            self.fail("a name, a number or one of ( ) , = should stand")
        kind = match.lastgroup or ""
        return kind, match[kind]

    def take(self) -> tuple[str, str]:
        token = self.peek()
        match = _TOKEN.match(self.text, self.place)
        if match is not None:
            self.place = match.end()
        return token

    def fail(self, expected: str) -> NoReturn:
        at = self.place + len(self.text[self.place :]) - len(self.text[self.place :].lstrip())
        raise UsageError(
            f"cannot read the {self.what} {self.text!r}: {expected} at position {at + 1}, "
            f"as in {self.example!r}"
        )

    def call(self) -> Call:
        if self.peek()[0] != "word":
            self.fail(f"a {self.what}'s name should stand")
        name = self.take()[1]
        named: dict[str, Any] = {}
        inner: list[Call] = []
        if self.peek() != ("mark", "("):
            return Call(name, named, ())
        self.take()
        while self.peek() != ("mark", ")"):
            start = self.place
            if self.peek()[0] != "word":
                self.fail("a field's name should stand")
            key = self.take()[1]
            if self.peek() == ("mark", "="):
                self.take()
                if key in named:
                    self.place = start
                    self.fail(f"{key!r} should be given once")
                named[key] = self.call() if name == "players" else self.value()
            elif name == "chain":
                self.place = start
                inner.append(self.call())
            else:
                self.fail(f"'=' and a value for {key!r} should stand")
            if self.peek() == ("mark", ","):
                self.take()
            elif self.peek() != ("mark", ")"):
                self.fail("',' or ')' should stand")
        self.take()
        return Call(name, named, tuple(inner))

    def value(self) -> Any:
        kind, token = self.peek()
        if kind == "number":
            self.take()
            return float(token) if re.search(r"[.eE]", token) else int(token)
        if kind == "text":
            self.take()
            return token[1:-1]
        if kind != "word":
            self.fail("a value should stand")
        if self._opens_after(token):
            return self.schedule()
        self.take()
        return WORDS.get(token.lower(), token)

    def schedule(self) -> Schedule:
        """``linear(1, 0.1)`` or ``cosine(1, 0.1, steps=500)``, where a value stands."""
        shape = self.take()[1]
        self.take()
        plain: list[Any] = []
        named: dict[str, Any] = {}
        while self.peek() != ("mark", ")"):
            start = self.place
            kind, token = self.peek()
            if kind == "word" and token in ("start", "end", "steps"):
                self.take()
                if self.take() != ("mark", "=") or token in named:
                    self.place = start
                    self.fail(f"{token!r} should be given once, with '=' and a value")
                named[token] = self.value()
            else:
                plain.append(self.value())
            if self.peek() == ("mark", ","):
                self.take()
            elif self.peek() != ("mark", ")"):
                self.fail("',' or ')' should stand")
        self.take()
        values = dict(zip(("start", "end", "steps"), plain, strict=False))
        known: dict[str, Any] = {**values, **named}
        twice = values.keys() & named.keys()
        if shape not in SHAPES:
            unknown("schedule", shape, SHAPES)
        if len(plain) > 3 or twice or not {"start", "end"} <= known.keys():
            raise UsageError(
                f"cannot read the {self.what} {self.text!r}: a schedule is written "
                f"{shape}(start, end) or {shape}(start, end, steps=1000)"
            )
        return Schedule(shape, known["start"], known["end"], known.get("steps"))

    def _opens_after(self, word: str) -> bool:
        return self.text[self.place :].lstrip()[len(word) :].lstrip().startswith("(")
