"""SPAM: clip an element that is far beyond what it used to be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Elements, Memory, Scope, Transform, register, setting, tunable
from gclip.core.pieces import in_pieces


@register("spam")
@dataclass(frozen=True, kw_only=True)
class Spam(Transform):
    """Cut each element's spikes: where g² > θ·v, g ← sign(g)·√(θ·v).

    v is a running mean of each element's g², v ← β·v + (1 − β)·g², of the clipped g and without
    bias correction; a step is held against the v from before it. As v starts at zero, the first
    `warmup` gradients of a tensor only fill it. With 19 of them the 20th is the first to be cut,
    as in the authors' code, where v is Adam's own. It starts again there, warm-up and all, at each
    momentum reset (every 500 steps); that is the optimizer's business, and v goes on here. An
    element whose v is zero has no past to be compared with and passes; there it would become zero,
    and stay so for ever.

    Memory: one number an element, as much as the gradient. On the side ``update``, g is the update.

    Huang, Zhu, Jin, Liu, Wang, Liu (2025), SPAM: Spike-Aware Adam with Momentum Reset for Stable
    LLM Training, arXiv:2501.06842.
    """

    equation = "where g² > θ·v, g ← sign(g)·√(θ·v)"
    paper = "Huang et al. 2025, arXiv:2501.06842"
    family = "changes elements"
    scopes = ("element",)
    own_warmup = True

    threshold: float = tunable(5000.0, low=10.0, high=1e5, log=True, above=0, doc="largest g²/v, θ")
    decay: float = setting(0.999, at_least=0, below=1, doc="how v forgets, β")
    warmup: int = setting(19, at_least=0, doc="a tensor's gradients before the limit binds")
    scope: Scope = "element"

    def remember(self, like: Tensor) -> Memory:
        # Counted here and not by the clipper: a tensor may get its first gradient late.
        return {"square": torch.zeros_like(like), "count": torch.zeros_like(like[..., :1])}

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values, square, count = seen.values, memory["square"], memory["count"]
        root = torch.full_like(count, math.sqrt(self.threshold))
        root = torch.where(count >= self.warmup, root, math.inf)
        clipped, square = in_pieces(self._clipped, values, square, root)
        return clipped, {"square": square, "count": count + 1}

    def _clipped(self, values: Tensor, square: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        limit = torch.threshold_(square.sqrt(), 0.0, math.inf)  # zero: nothing is known
        limit.mul_(root)
        clipped = torch.clamp(values, -limit, limit)
        # One square that overflows would switch the limit off for ever.
        new = clipped.square().clamp_(max=torch.finfo(values.dtype).max)
        return clipped, torch.lerp(square, new, 1 - self.decay)
