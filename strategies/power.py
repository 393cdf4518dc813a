"""GradPower: raise each element's size to a power, its sign kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Elements, Memory, Scope, Transform, register, tunable
from gclip.core.pieces import in_pieces


@register("power", "gradpower")
@dataclass(frozen=True, kw_only=True)
class Power(Transform):
    """Raise each element to a power: g ← sign(g)·|g|^p.

    p < 1 compresses: large elements shrink and small ones grow. p > 1 spreads, which is what the
    paper does (1.2, before Adam). p = 1 leaves every bit as it is, 0 stays 0. Elements that would
    overflow become the largest number there is. No memory.

    It changes the gradient's scale: meant for optimizers that do not mind it, such as Adam, and
    under a GradScaler for gradients that have been unscaled.

    Wang, Wang, Zhang, Wang, Pei, Cai, E, Wu (2025), GradPower: Powering Gradients for Faster
    Language Model Pre-Training, arXiv:2505.24275.
    """

    equation = "g ← sign(g)·|g|^p"
    paper = "Wang et al. 2025, arXiv:2505.24275"
    family = "changes elements"
    scopes = ("element",)
    sides = ("gradient",)

    p: float = tunable(1.2, low=0.5, high=2.0, above=0, doc="the power, p")
    scope: Scope = "element"

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values = seen.values
        if self.p == 1:
            return values, {}
        (raised,) = in_pieces(self._raised, values)
        return raised, {}

    def _raised(self, values: Tensor) -> tuple[Tensor]:
        size, most = values.abs(), torch.finfo(values.dtype).max
        raised = size.pow(self.p).clamp_(max=most)
        # Elements that are not finite are left to the clipper, which has a policy for them.
        raised.add_(torch.threshold_(size, most, 0.0))
        return (raised.copysign_(values),)
