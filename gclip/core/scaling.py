"""Powers of numbers relative to the largest of them, so that they neither overflow nor vanish."""

from __future__ import annotations

import torch
from torch import Tensor


def divisor(largest: Tensor) -> Tensor:
    """The `largest` numbers, to divide others by; 1 where they are zero or not finite."""
    return torch.where((largest > 0) & torch.isfinite(largest), largest, 1.0)
