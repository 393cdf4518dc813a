"""AdaNorm: raise gradients that are smaller than usual."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Band, Memory, Scope, Seen, Strategy, register, tunable


@register("adanorm", "norm_correction")
@dataclass(frozen=True, kw_only=True)
class AdaNorm(Strategy):
    """Raise small gradients to the usual norm: g ← g · max(1, e/n), e the moving average of n.

    e ← γ·e + (1 − γ)·n with this step's norm before correction, then g is scaled **up** where
    e > n. Nothing is scaled down. A zero gradient stays zero.

    Memory: e for each group. It starts at 0 and is not corrected for that, as published: never
    the first gradient, and in the first steps, while e climbs, only much smaller ones are raised.

    In the paper the optimizer's first moment gets the corrected gradient, and its second moment
    the gradient as it was; here the optimizer sees the corrected one alone.

    Dubey, Singh, Chaudhuri (2022), AdaNorm: Adaptive Gradient Norm Correction based Optimizer
    for CNNs, arXiv:2210.06364.
    """

    equation = "g ← g · max(1, e/n), e the moving average of n"
    paper = "Dubey et al. 2022, arXiv:2210.06364"
    family = "past norms"
    rules = ("scale",)

    decay: float = tunable(0.95, low=0.5, high=0.999, below=1, doc="of the moving average, γ")
    scope: Scope = "tensor"

    def remember(self, like: Tensor) -> Memory:
        return {"mean": torch.zeros_like(like)}

    def limit(self, seen: Seen, memory: Memory) -> Band:
        return Band(self._average(seen, memory), math.inf)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"mean": self._average(seen, memory)}

    def _average(self, seen: Seen, memory: Memory) -> Tensor:
        return torch.lerp(seen.norm, memory["mean"], self.decay)
