"""A strategy's docstring, taken apart: what it does, its equation, and where it comes from.

The convention, which is also how the docstrings read best::

    Rescale to a fixed norm: g ← g · min(1, c/‖g‖). Keeps the gradient's direction.

    Anything else there is to say.

    Pascanu, Mikolov, Bengio (2013), On the difficulty of training…, arXiv:1211.5063.

The equation is what follows the colon in the first sentence (or in the block below it, after
``::``). The reference is the last paragraph that has authors and a year; a method that only was
shipped says so: ``optax.clip_by_block_rms`` (DeepMind, 2020), or OLMo (Apache-2.0).
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

_ARXIV = re.compile(r"arXiv:\s*(\d{4}\.\d{4,5})", re.IGNORECASE)
_AUTHORS = re.compile(r"(?:^|[.;:] |\bafter )((?:[A-Z]\. ?)*[^\W\d_a-z][^()`]*?) \((\d{4})[a-z]?\)")
_SHIPPED = re.compile(r"``([\w.]+)`` \(([^()]*\b\d{4})\)")
_LICENSED = re.compile(r"(?:^|[ (])([A-Z]?[\w.+-]*\w)(?:'s)? \(((?:MIT|BSD|Apache)[\w.-]*)\)")
_MAKER = re.compile(r"^([A-Z]\w+'s [\w-]*\w)")
_LINK = re.compile(r"arXiv:|doi:|https?://", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[^.\s][.!?]) +(?=[^\Wa-z_]|``)")
_FORMULA = re.compile(r"[←=≤≥<>‖√·/]")
_RELATION = re.compile(r"[←=≤≥<>]")
_ET_AL = re.compile(r"\s+et al\.?$")


@dataclass(frozen=True)
class Reference:
    """Where a method comes from.

    Attributes:
        text: the paragraph that says so, on one line.
        short: ``Brock et al. 2021``; a program's name where there is no paper.
        arxiv: ``2102.06171``, or None.
    """

    text: str
    short: str
    arxiv: str | None

    @property
    def words(self) -> str:
        """``Brock et al. 2021, arXiv:2102.06171``."""
        return self.short if self.arxiv is None else f"{self.short}, arXiv:{self.arxiv}"


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring; text is without line breaks.

    Attributes:
        summary: the first paragraph.
        equation: the summary's equation; where there is none, its first sentence.
        reference: None where no source is named.
        body: all of it, as written, without the indentation of the code.
    """

    summary: str
    equation: str
    reference: Reference | None
    body: str


def read(doc: str | None) -> Docstring:
    """Take a docstring apart."""
    body = inspect.cleandoc(doc or "")
    paragraphs = [p for p in re.split(r"\n\s*\n", body) if p.strip()]
    summary = _line(paragraphs[0]) if paragraphs else ""
    return Docstring(summary, _equation(paragraphs), _reference(paragraphs[1:]), body)


def _equation(paragraphs: list[str]) -> str:
    if not paragraphs:
        return ""
    first = _SENTENCE.split(_line(paragraphs[0]))[0]
    if first.endswith(":"):  # a block of its own follows, maybe after ::
        block = paragraphs[1].splitlines() if len(paragraphs) > 1 else []
        if block and all(line.startswith((" ", "\t")) for line in block):
            return "; ".join(_line(line) for line in block)
    before, colon, after = first.partition(": ")
    if colon and _FORMULA.search(after):
        return after.rstrip(".")
    if _RELATION.search(before):
        return before.rstrip(".")
    sentences = [s for p in paragraphs for s in _SENTENCE.split(_line(p))]
    for sign in ("←", " = "):
        for sentence in sentences:
            if sign in sentence:
                head, there, tail = sentence.removeprefix("Then ").partition(": ")
                chosen = tail if there and _FORMULA.search(tail) else head + there + tail
                return chosen.rstrip(".")
    return (after if colon else before).rstrip(".:")


def _reference(paragraphs: list[str]) -> Reference | None:
    lines = [_line(paragraph) for paragraph in paragraphs]
    for pattern in (_AUTHORS, _SHIPPED, _LICENSED, _LINK):
        for line in reversed(lines):
            found = pattern.search(line)
            if found:
                return _made(line, found, pattern)
    maker = _MAKER.match(lines[-1]) if lines else None
    return Reference(lines[-1].replace("``", "").rstrip("."), maker[1], None) if maker else None


def _made(line: str, found: re.Match[str], pattern: re.Pattern[str]) -> Reference:
    text = line.replace("``", "").rstrip(".")
    if pattern is _AUTHORS:
        # Of several references, the id that stands before the next one's year is this one's.
        after = line[found.end() :]
        following = _AUTHORS.search(after)
        arxiv = _ARXIV.search(after[: following.start()] if following else after)
        short = f"{_few(found[1])} {found[2]}"
        return Reference(text, short, arxiv[1] if arxiv else None)
    arxiv = _ARXIV.search(line)
    if pattern is _LINK:
        return Reference(text, "" if arxiv else _few(text), arxiv[1] if arxiv else None)
    # optax.clip_by_block_rms is optax's
    return Reference(
        text, f"{found[1].partition('.')[0]} ({found[2]})", arxiv[1] if arxiv else None
    )


def _few(authors: str) -> str:
    """``Brock, De, Smith, Simonyan`` as ``Brock et al.``, two of them as ``A & B``."""
    if _ET_AL.search(authors):
        return _ET_AL.sub(" et al.", authors)
    names = [name for name in re.split(r",\s*(?:and |& )?| and | & ", authors) if name]
    if len(names) > 2:
        return f"{names[0]} et al."
    return " & ".join(names)


def _line(text: str) -> str:
    return " ".join(text.split())
