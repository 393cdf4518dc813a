"""A row of the benchmarks that count images a second."""

from __future__ import annotations

from typing import Any


def rate_row(case: str, peer: str, ours: float, theirs: float) -> dict[str, Any]:
    """Both rates, and how many times the peer's ours is.

    Args:
        case: what was measured.
        peer: beside what.
        ours: images a second.
        theirs: the peer's.
    """
    return {"case": case, "peer": peer, "speedup": ours / theirs, "ours": ours, "theirs": theirs}
