"""Numbers that people give, as far as they can be computed with; and any value in few letters."""

from __future__ import annotations

import math
from typing import Any

from gclip.errors import UsageError

LARGEST = 2**63 - 1
"""The largest whole number that a tensor holds."""
_MOST_LETTERS = 60


def as_number(value: Any) -> float | None:
    """`value` as a float; None where it is no number, or a whole number too large for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def as_whole(value: Any) -> int | None:
    """`value` as a whole number from -`LARGEST` to `LARGEST`; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value) if -LARGEST <= value <= LARGEST else None


def bounded(name: str, value: Any, most: int, least: int = 1) -> int:
    """`value`, a whole number from `least` to `most`.

    Raises:
        UsageError: it is something else.
    """
    whole = None if isinstance(value, float) else as_whole(value)
    if whole is None or not least <= whole <= most:
        raise UsageError(
            f"{name} must be a whole number from {least} to {most:,}, but got {shown(value)}"
        )
    return whole


def shown(value: Any) -> str:
    """`value` as a message quotes it: its ``repr``, or the beginning and the end of a long one."""
    if isinstance(value, int) and abs(value) > LARGEST**3:
        return f"a whole number of about {int(value.bit_length() * 0.30103) + 1} digits"
    text = repr(value)
    if len(text) <= _MOST_LETTERS:
        return text
    half = (_MOST_LETTERS - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
