"""Limit each tensor to a multiple of the moving average of its norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Memory, Scope, Seen, Strategy, register, setting, tunable


@register("ema_ratio", "norm_ratio")
@dataclass(frozen=True, kw_only=True)
class EMARatio(Strategy):
    """Allow a multiple of the usual norm: c = ratio · m, m the moving average of clipped norms.

    Memory: m for each group. It starts at the group's first norm, which is therefore not clipped,
    and then m ← d·m + (1 − d)·n̂ with n̂ the norm after clipping. (OLMo's starts at the second, only
    because its optimizer has no state to keep it in before.) OLMo takes for d the larger of
    Adam's two betas; 0.95 is the one that it trains with. A norm of zero does not enter: m = 0
    would silence a tensor for ever. For the same reason the ratio is at least 1.

    Groeneveld et al. (2024), OLMo: Accelerating the Science of Language Models, arXiv:2402.00838;
    the rule is that of its published training code.
    """

    equation = "c = ratio · m, m the moving average of clipped norms"
    paper = "Groeneveld et al. 2024, arXiv:2402.00838"
    family = "past norms"
    scopes = ("global", "layer", "tensor", "unit", "element")

    ratio: float = tunable(2.0, low=1.05, high=10.0, log=True, at_least=1.0, doc="limit over m")
    decay: float = setting(0.95, at_least=0, below=1, doc="of the moving average, d")
    scope: Scope = "tensor"

    def remember(self, like: Tensor) -> Memory:
        return {"mean": torch.full_like(like, math.inf)}

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        bound: Tensor = self.ratio * memory["mean"]
        return bound

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        mean = memory["mean"]
        new = torch.where(mean.isinf(), clipped_norm, torch.lerp(clipped_norm, mean, self.decay))
        return {"mean": torch.where(clipped_norm > 0, new, mean)}
