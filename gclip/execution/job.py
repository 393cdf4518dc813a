"""One run that a pool trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gclip.training import RunConfig


@dataclass(frozen=True)
class Job:
    """One run in a pool: its place in the asker's list, and its config."""

    index: int
    config: RunConfig
