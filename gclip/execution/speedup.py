"""How much faster fleets are: what was measured, and kept beside the store for the next time.

The file lets the same command decide the same again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gclip.core.files import read_file

WIN = 1.05
"""A fleet must be so much faster than one run after another."""
ALIKE = 1.03
"""Of sizes that are so close the smallest is taken: it loses less when a worker dies."""

FILE = "fleet.json"


@dataclass(frozen=True)
class Speedup:
    """What was measured.

    Attributes:
        times: how many times faster than one run after another is a fleet, by its size.
        most: the largest size that was measured, or thought of and left out.
    """

    times: Mapping[int, float] = field(default_factory=dict)
    most: int = 1

    def best(self, cap: int) -> int:
        """The size to take, at most `cap`; 1 for no fleets."""
        able = {size: times for size, times in self.times.items() if size <= cap}
        fastest = max(able.values(), default=1.0)
        if fastest < WIN:
            return 1
        return min(size for size, times in able.items() if ALIKE * times >= fastest)

    def to_json(self) -> dict[str, Any]:
        """As it is kept, and sent by a worker."""
        times = {str(size): round(times, 3) for size, times in sorted(self.times.items())}
        return {"times": times, "most": self.most}

    @classmethod
    def of(cls, entry: Any) -> Speedup | None:
        """What `to_json` gave; None for anything else."""
        try:
            times = {int(size): float(each) for size, each in entry["times"].items()}
            return cls(times, int(entry["most"]))
        except (TypeError, KeyError, ValueError, AttributeError):
            return None

    @classmethod
    def mean(cls, measured: Sequence[Speedup]) -> Speedup:
        """What several workers measured at the same time: the mean of each size they all have."""
        sizes = set.intersection(*(set(each.times) for each in measured))
        times = {size: statistics.fmean(each.times[size] for each in measured) for size in sizes}
        return cls(dict(sorted(times.items())), min(each.most for each in measured))


def read(folder: Path, described: Mapping[str, Any]) -> Speedup | None:
    """What was measured before for such work; None where nothing was."""
    return Speedup.of(_entries(folder).get(_key(described)))


def write(folder: Path, described: Mapping[str, Any], measured: Speedup) -> None:
    """Keep a measurement; where that is not possible it is measured again."""
    entry = {"of": dict(described), **measured.to_json()}
    text = json.dumps({**_entries(folder), _key(described): entry}, indent=2) + "\n"
    temporary = folder / f".{FILE}.{uuid.uuid4().hex}"
    with contextlib.suppress(OSError):
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / FILE)


def _entries(folder: Path) -> dict[str, Any]:
    try:
        entries = json.loads(read_file(folder / FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _key(described: Mapping[str, Any]) -> str:
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
