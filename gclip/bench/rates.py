"""What the benchmarks share that count images a second: their rows, and their counts' bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gclip.errors import UsageError


def rate_row(case: str, peer: str, ours: float, theirs: float) -> dict[str, Any]:
    """Both rates, and how many times the peer's ours is.

    Args:
        case: what was measured.
        peer: beside what.
        ours: images a second.
        theirs: the peer's.
    """
    return {"case": case, "peer": peer, "speedup": ours / theirs, "ours": ours, "theirs": theirs}


def check_counts(name: str, values: Sequence[int]) -> None:
    """Raise `UsageError` for a number of images or runs below 1."""
    wrong = [value for value in values if value < 1]
    if wrong:
        raise UsageError(f"{name} are whole numbers of at least 1, but got {wrong[0]}")
