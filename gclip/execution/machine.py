"""How many runs at a time does this machine carry?"""

from __future__ import annotations

import os
from pathlib import Path

from gclip.core.numbers import bounded

MOST_THREADS = MOST_WORKERS = 1024
"""More than this many end a process, or the machine."""
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """The cores this process may use: its affinity, and a container's quota where there is one."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        allowed = os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return max(1, allowed)


def workers_for(device: str, asked: int | None = None) -> int:
    """How many processes train at once: what was `asked`, else one a core, or one on a GPU.

    Every process computes with one thread: two threads in each of two processes are 14 times
    slower on two cores than one in each.
    """
    if asked is not None:
        return bounded("workers", asked, MOST_WORKERS)
    return cores() if device == "cpu" else 1
