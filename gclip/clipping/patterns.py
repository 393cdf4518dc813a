"""Patterns of parameters' names: ``head.*``, ``*.bias``."""

from __future__ import annotations

from fnmatch import fnmatchcase


def matches(names: tuple[str, str], pattern: str) -> bool:
    """Whether a parameter is meant, by its plain name or by the one that a wrapper shows."""
    return any(fnmatchcase(name, pattern) for name in names)
