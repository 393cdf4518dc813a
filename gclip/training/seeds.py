"""Which random numbers does a run see? One seed for each role, derived from the run's seed.

Two runs with the same seed start from the same weights and see the same batches, whatever their
strategies do with random numbers of their own: comparisons between strategies are paired.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import torch

Role = Literal["weights", "order", "augmentation", "strategy", "labels", "noise", "dropout"]


def derive(seed: int, role: str) -> int:
    """A 63-bit seed for `role`; the same on every machine and for ever."""
    digest = hashlib.sha256(f"gclip/{seed}/{role}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, role: str) -> torch.Generator:
    """A CPU generator for `role`: draws are made on the CPU so that a GPU sees the same batches."""
    return torch.Generator().manual_seed(derive(seed, role))
