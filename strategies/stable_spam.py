"""Stable-SPAM: cut spikes at the usual largest element, then give the tensor its usual norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Elements, Memory, Transform, register, setting, tunable
from gclip.core.host import on_host
from gclip.core.pieces import in_pieces


@register("stable_spam")
@dataclass(frozen=True, kw_only=True)
class StableSpam(Transform):
    """Rein in each tensor's elements, then its norm, by running means of both.

    1. m̂ is the mean of max|g| (decay `theta`, this step's included). Elements with |g| > m̂ become
       g · m̂/max|g|.
    2. n = ‖g‖ after that; m̂ₙ is the mean of n (`gamma1`), v̂ₙ of n² (`gamma2`), this step's
       included. Then g ← g/n · m̂ₙ/(√v̂ₙ + ε).

    All means are bias-corrected. From its first gradient on every tensor is left with a norm of
    about 1, and less after its norm has fallen: the norm is replaced, not limited, so this is for
    optimizers that do not mind the gradient's scale, such as Adam. A gradient of zero stays zero.

    Memory: six numbers a tensor. The momentum reset of the paper is the optimizer's business; the
    authors' code restarts the count of the bias correction at each, which is not done here.

    Huang, Hu, Zhang, Jin, Li, Shen, Chen, Liu, Wen, Wang, Liu (2025), Stable-SPAM: How to Train in
    4-Bit More Stably than 16-Bit Adam, arXiv:2502.17055v2. (Later versions of that number are
    GradientStabilizer: Fix the Norm, Not the Gradient, 2026: step 2 without the bias correction.)
    """

    equation = "g ← g · m̂/max|g| where |g| > m̂; then g ← g/n · m̂ₙ/(√v̂ₙ + ε)"
    paper = "Huang et al. 2025, arXiv:2502.17055"
    family = "changes elements"
    sides = ("gradient",)

    gamma1: float = tunable(0.7, low=0.5, high=0.99, below=1, doc="how the mean of n forgets, γ₁")
    gamma2: float = setting(0.9, at_least=0, below=1, doc="how the mean of n² forgets, γ₂")
    theta: float = setting(0.999, at_least=0, below=1, doc="how the mean of max|g| forgets, θ")
    eps: float = setting(1e-8, above=0, doc="added to √v̂ₙ, ε")

    def remember(self, like: Tensor) -> Memory:
        nothing = torch.zeros_like(like[..., :1])
        names = ("top", "norm", "square", "top_weight", "norm_weight", "square_weight")
        return {name: nothing.clone() for name in names}

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values = seen.values
        low, high = values.amin(dim=-1, keepdim=True), values.amax(dim=-1, keepdim=True)
        top = torch.maximum(low.neg_(), high)
        new = self._pushed(memory, "top", top, self.theta)
        limit = new["top"] / new["top_weight"]
        clipped = values
        if not on_host(top) or bool((top > limit).any()):
            (clipped,) = in_pieces(self._reined, values, limit, limit / top)

        # The largest element is divided out first: squares of large elements overflow.
        largest = torch.minimum(top, limit)
        there = largest > 0
        direction = clipped / torch.where(there, largest, 1.0)
        length = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        highest = torch.finfo(values.dtype).max / 2  # rounding must not lead beyond it
        norm = (length * largest).clamp(max=highest)
        new |= self._pushed(memory, "norm", norm, self.gamma1)
        new |= self._pushed(memory, "square", norm.square().clamp(max=highest), self.gamma2)
        spread = (new["square"] / new["square_weight"]).sqrt() + self.eps
        usual = new["norm"] / new["norm_weight"] / spread
        return direction.mul_(torch.where(there, usual / length, 1.0)), new

    @staticmethod
    def _reined(values: Tensor, limit: Tensor, ratio: Tensor) -> tuple[Tensor]:
        size = values.abs()
        if on_host(size) and not bool((size.amax(dim=-1, keepdim=True) > limit).any()):
            return (values,)
        return (torch.where(size > limit, values * ratio, values),)

    @staticmethod
    def _pushed(memory: Memory, name: str, value: Tensor, decay: float) -> dict[str, Tensor]:
        """The mean called `name` with one more `value`; the weights undo the start at zero."""
        weight = f"{name}_weight"
        return {
            name: torch.lerp(memory[name], value, 1 - decay),
            weight: torch.lerp(memory[weight], torch.ones_like(memory[weight]), 1 - decay),
        }
