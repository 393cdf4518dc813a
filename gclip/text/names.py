"""Spellings as parts of names of files, folders and studies."""

from __future__ import annotations


def in_a_name(spelling: str) -> str:
    """``norm(max_norm=1)`` as ``norm-max_norm-1``: what a name may have of a spelling."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in spelling).strip("-")
