"""How fast can this machine's memory be read and written? What no clip call can beat."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

SIZE = 256 * 2**20  # bytes: larger than any cache


@dataclass(frozen=True)
class Bandwidth:
    """Seconds a byte: to read it, and to read it and write it back, with all of torch's threads."""

    read: float
    update: float

    def floor(self, size: int, reads: int, updates: int) -> float:
        """The least seconds for passes over `size` bytes that are in no cache."""
        return size * (reads * self.read + updates * self.update)


def measure(repeats: int = 7) -> Bandwidth:
    """The best of a few passes over a buffer that no cache holds, by torch's fastest calls."""
    buffer = torch.ones(SIZE // 4)
    reads: tuple[Callable[[], object], ...] = (
        lambda: torch.dot(buffer, buffer), buffer.sum, lambda: torch.aminmax(buffer),
    )  # fmt: skip
    read = min(_seconds(call, repeats) for call in reads)
    return Bandwidth(read / SIZE, _seconds(lambda: buffer.mul_(1.0), repeats) / SIZE)


def _seconds(call: Callable[[], object], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
