"""How gclip says no: one sentence with the value, the rule and the valid choices."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NoReturn

_MOST_LETTERS = 200


class UsageError(ValueError):
    """The input is wrong, and the message says how to put it right.

    At the command line it becomes one line on stderr and exit code 2.
    """


def suggestion(value: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'norm'?"``, or nothing where no choice is near `value`."""
    near = difflib.get_close_matches(str(value), list(choices), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown(what: str, value: object, choices: Iterable[str]) -> NoReturn:
    """Raise the error for a `value` that is none of the `choices`."""
    known = list(choices)
    valid = ", ".join(known) if known else "none"
    text = repr(value)
    if len(text) > _MOST_LETTERS:  # nothing that long is near a choice
        raise UsageError(f"unknown {what} {text[:40]}…{text[-20:]} (choices: {valid})")
    raise UsageError(f"unknown {what} {text}{suggestion(str(value), known)} (choices: {valid})")


def choose(value: str, choices: Iterable[str], what: str) -> str:
    """Return `value` if it is one of `choices`, else raise `UsageError` naming them."""
    known = list(choices)
    if value not in known:
        unknown(what, value, known)
    return value
