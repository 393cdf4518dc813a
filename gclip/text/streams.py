"""Standard streams that take whatever is printed: a result is never lost to its printing.

A terminal or a file may not know every letter (``cp1252`` when redirected on Windows, ``ascii`` in
a bare container): what it lacks is written with the letters that it has. A program may also have
been started without standard streams at all.
"""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata

_HANDLER = "gclip-plain"
_PLAIN = {
    **dict.fromkeys("─━│┃", "-"), **dict.fromkeys("·•", "."), **dict.fromkeys("–—−", "-"),
    "│": "|", "‖": "||", "×": "x", "…": "...", "≤": "<=", "≥": ">=", "±": "+-", "→": "->",
    "←": "<-", "∞": "inf", "√": "sqrt", "▲": "^", "▼": "v", "’": "'", "‘": "'", "“": '"', "”": '"',
    "é": "e", "µ": "u", "σ": "sigma", "λ": "lambda", "ε": "eps", "γ": "gamma", "β": "beta",
    "α": "alpha", "θ": "theta", "Σ": "sum", "²": "^2", "ⁿ": "^n", "⊙": "*", "╴": "-", "╸": "-",
}  # fmt: skip
"""Letters of ours and what stands for them."""


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    written = "".join(_PLAIN.get(letter) or _escaped(letter) for letter in letters)
    return written, error.end


def _escaped(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(_HANDLER, _plain)


def make_printable() -> None:
    """Give this process streams that take every letter, and some where it has none."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def printable(text: str, *, keep: str = "") -> str:
    """`text` with escapes for what a terminal would obey, such as ``\\x1b``, or reverse.

    Names and messages may come from a stored run, a folder or a plugin of anybody's.

    >>> printable("\x1b[31mred")
    '\\\\x1b[31mred'

    Args:
        text: to be shown.
        keep: letters to leave as they are, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep or unicodedata.category(c) == "Zs" else repr(c)[1:-1]
        for c in text
    )


def takes_every_letter() -> bool:
    """Whether standard output knows every letter, so that JSON need not spell them in ASCII."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    return encoding.startswith("utf")
