"""How the studies write intervals, factors, lists and names."""

from __future__ import annotations

import math
from collections.abc import Iterable

from gclip.text.screen import percent


def interval(
    value: float | None, low: float | None, high: float | None, *, sign: bool = False
) -> str:
    """``95.3 ± 1.2``, or ``95.3 [66,97]`` where the interval is not symmetric.

    Args:
        value: in the middle.
        low: lower end.
        high: upper end.
        sign: whether a plus is written.
    """
    text = percent(value, sign=sign)
    if value is None or low is None or high is None or math.isnan(low) or math.isnan(high):
        return text
    if abs(low + high - 2 * value) > 1e-9:
        return f"{text} [{percent(low, 0)},{percent(high, 0)}]"
    return f"{text} ± {percent((high - low) / 2)}"


def factor(value: float | None) -> str:
    """``×3.2``, ``×32``."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"×{value:.2g}" if value < 10 else f"×{value:.0f}"


def listed(words: Iterable[object]) -> str:
    """``a, b and c``."""
    *most, last = [str(word) for word in words]
    return f"{', '.join(most)} and {last}" if most else last


def in_a_name(spelling: str) -> str:
    """``norm(max_norm=1)`` as ``norm-max_norm-1``: what a study's name may have of a spelling."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in spelling).strip("-")
