"""Patterns of parameters' names: ``head.*``, ``*.bias``."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NoReturn

from gclip.errors import UsageError, suggestion


def matches(names: tuple[str, str], pattern: str) -> bool:
    """Whether a parameter is meant, by its plain name or by the one that a wrapper shows."""
    return any(fnmatchcase(name, pattern) for name in names)


def refuse_unmatched(
    pattern: str, names: Sequence[str], *, others: Sequence[str] = (), prefix: str = ""
) -> NoReturn:
    """`UsageError` for a pattern that matches none of the parameters `names`.

    Args:
        pattern: that was given.
        names: of the parameters.
        others: patterns that it may have been meant for.
        prefix: what the sentence begins with.
    """
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    raise UsageError(
        f"{prefix}the pattern {pattern!r} matches no parameter"
        f"{suggestion(pattern, [*others, *names])} (parameters: {shown})"
    )
