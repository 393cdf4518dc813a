"""With which code does a command end whose runs failed?"""

from __future__ import annotations

from collections.abc import Iterable


def failure_code(messages: Iterable[str]) -> int:
    """2 where every run failed of the user's own problem (its code is wrong input), else 1."""
    return 2 if all(message.startswith("problem ") for message in messages) else 1
