"""What a compiled step leaves to Python.

``torch.compile`` turns the measuring and the scaling of gradients into graphs. In between, the
strategy is asked with plain numbers (its step count, schedules, learning rates, the places in a
window), which change at every step: as part of a graph each of them would have it compiled anew.
So the graph breaks there, a fixed number of times, and nothing is compiled again later.

Imported only while compiling: torch's compiler takes a second to load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _call(work: Callable[..., Any], *args: Any) -> Any:
    return work(*args)


_disable: Any = torch.compiler.disable
outside: Callable[..., Any] = _disable(
    _call, reason="gclip asks the strategy, counts and records outside the graph"
)
"""Call `work` as if nothing were being compiled."""
