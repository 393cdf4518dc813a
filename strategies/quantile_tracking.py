"""Adaptive clipping: let the limit follow a quantile of the norms, with one number of memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Memory, Seen, Strategy, UsageError, register, setting, tunable


@register("quantile_tracking", "adaptive_quantile")
@dataclass(frozen=True, kw_only=True)
class QuantileTracking(Strategy):
    """Follow the γ-quantile of the norms: C ← C · exp(−η(b − γ)), with b = 1 where n ≤ C, else 0.

    A norm within the limit lowers it, one beyond raises it, in balance where the share γ is
    within. With ``update=arithmetic``, C ← C − η(b − γ). The streaming form of ``percentile``:
    it forgets the past at the rate η and follows norms that drift. On the side ``sample``, as in
    the paper, b is the share of the step's examples that are within (no noise is added to it).

    Memory: the limit C of each group, from `start` on, moved after each step by that step's norm
    before clipping, and kept within `lowest` and `highest`. Geometric steps are at most a factor
    exp(η·max(γ, 1 − γ)): far from the norms it takes a while to arrive (`warmup` bridges it).
    Opacus bounds C to 1…1e8; the lower bound here lets small gradients be followed too.

    Andrew, Thakkar, McMahan, Ramaswamy (2021), Differentially Private Learning with Adaptive
    Clipping, arXiv:1905.03871.
    """

    equation = "C ← C · exp(−η(b − γ)), with b = 1 where n ≤ C, else 0"
    paper = "Andrew et al. 2021, arXiv:1905.03871"
    family = "past norms"
    sides = ("gradient", "update", "sample")
    scopes = ("global", "layer", "tensor", "unit", "element")

    quantile: float = tunable(0.5, low=0.05, high=0.99, at_most=1.0, doc="share within, γ")
    eta: float = tunable(0.2, low=0.01, high=1.0, log=True, doc="step size, η")
    update: str = setting(
        "geometric", choices=("geometric", "arithmetic"), doc="how the limit moves"
    )
    start: float = setting(1.0, above=0, doc="first limit")
    lowest: float = setting(1e-8, above=0, doc="smallest limit")
    highest: float = setting(1e8, above=0, doc="largest limit")

    def validate(self) -> None:
        if not self.lowest <= self.start <= self.highest:
            raise UsageError(
                f"quantile_tracking: lowest <= start <= highest must hold, but got "
                f"lowest={self.lowest:g}, start={self.start:g}, highest={self.highest:g}"
            )
        if math.isinf(self.start):
            raise UsageError("quantile_tracking: start must be finite, or it could never fall")

    def remember(self, like: Tensor) -> Memory:
        return {"limit": torch.full_like(like, self.start)}

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        bound: Tensor = memory["limit"]
        return bound

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        old = memory["limit"]
        within = seen.example_mean((seen.norm <= old).to(old.dtype))
        move = self.eta * (within - self.quantile)
        new = old * torch.exp(-move) if self.update == "geometric" else old - move
        return {"limit": new.clamp(self.lowest, self.highest)}
