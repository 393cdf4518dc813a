"""Has a launcher such as torchrun started this process as one of several?"""

from __future__ import annotations

import os


def launched() -> tuple[int, int] | None:
    """This process's number and how many there are (RANK and WORLD_SIZE, as torchrun sets them).

    None where it is alone.
    """
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not (rank.isdecimal() and size.isdecimal() and int(size) > 1):
        return None
    return int(rank), int(size)


def speaks() -> bool:
    """Whether this process says what all of them have to say: it is alone, or the first."""
    found = launched()
    return found is None or found[0] == 0


def speaks_on_its_machine() -> bool:
    """Whether this process says what all of its machine have to say: the first there."""
    return launched() is None or os.environ.get("LOCAL_RANK", os.environ["RANK"]) == "0"
