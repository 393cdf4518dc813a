"""The global random states that a program has, which no run may depend on or change."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def world(number: int) -> Iterator[None]:
    """Global random states as the program `number` would have them; the caller's afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def random_states() -> dict[str, Any]:
    """What the three global generators hold, by what they are called."""
    return {
        "torch's global generator": torch.get_rng_state(),
        "NumPy's global generator": np.random.get_state(),
        "Python's random module": random.getstate(),
    }
