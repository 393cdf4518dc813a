"""AdaGC: limit each tensor by the running mean of its own clipped norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Memory, Scope, Seen, Strategy, register, setting, tunable


@register("adagc", "ada_gc")
@dataclass(frozen=True, kw_only=True)
class AdaGC(Strategy):
    """Keep each tensor near its own past: g ← g · min(1, λ_rel·γ/n), γ the mean of clipped norms.

    During a group's first `warmup` steps all gradients are clipped by their global norm N
    instead, g ← g · min(1, λ_abs/N), while γ is the smallest clipped norm so far. By default γ
    binds from the 101st on, as in the authors' code.

    Memory: γ and a count for each group. After the warm-up γ ← β·γ + (1 − β)·n̂, with n̂ the norm
    after clipping (not its square). The count is of steps with a gradient, so that a group which
    appears late has its own warm-up; without one (``warmup=0``) γ starts at the first norm, which
    is not clipped. A norm of zero does not enter: γ = 0 would silence a tensor for ever.

    Wang, Li, Chen, Zeng, Yang, Yu, Ma, Shen (2025), AdaGC: Enhancing LLM Pretraining Stability
    via Adaptive Gradient Clipping, arXiv:2502.11034. Their code of 2026 has λ_rel = 1.04, β = 0.99.
    """

    equation = "g ← g · min(1, λ_rel·γ/n), γ the mean of clipped norms"
    paper = "Wang et al. 2025, arXiv:2502.11034"
    family = "past norms"
    own_warmup = True

    relative: float = tunable(
        1.05, low=1.01, high=2.0, log=True, at_least=1.0, doc="limit over γ, λ_rel"
    )
    absolute: float = setting(1.0, at_least=0, doc="largest global norm in the warm-up, λ_abs")
    decay: float = setting(0.98, at_least=0, below=1, doc="of the moving mean γ, β")
    scope: Scope = "tensor"
    warmup: int = setting(100, at_least=0, doc="steps clipped by the global norm")

    def remember(self, like: Tensor) -> Memory:
        return {"level": torch.full_like(like, math.inf), "count": torch.zeros_like(like)}

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        whole = seen.global_norm
        # The limit of each group for which the factor is that of the global norm.
        start = torch.where(whole > self.absolute, seen.norm * (self.absolute / whole), math.inf)
        return torch.where(self._warming(memory), start, self.relative * memory["level"])

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        level, count = memory["level"], memory["count"]
        # With an infinite level there is no past yet: the minimum is then the first norm.
        least = self._warming(memory) | level.isinf()
        new = torch.where(
            least,
            torch.minimum(level, clipped_norm),
            torch.lerp(clipped_norm, level, self.decay),
        )
        there = clipped_norm > 0
        return {
            "level": torch.where(there, new, level),
            "count": torch.where(there, (count + 1).clamp(max=self.warmup), count),
        }

    def _warming(self, memory: Memory) -> Tensor:
        warming: Tensor = memory["count"] < self.warmup
        return warming
