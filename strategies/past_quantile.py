"""Clip to a quantile of the norms before this step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gclip import Memory, Seen, Strategy, register, setting, tunable
from gclip.core.quantile import empty, push, quantile


@register("past_quantile", "quantile_clip")
@dataclass(frozen=True, kw_only=True)
class PastQuantile(Strategy):
    """Clip to the q-quantile of the last norms, this step's left out.

    c_t = quantile_q(n_{t−window} … n_{t−1}), linearly interpolated. The first step is not
    clipped. ``percentile`` counts the current norm in; here a spike cannot raise its own limit.

    Memory: the last `window` norms of each group, before clipping. The package takes each tensor
    by itself unless told otherwise: ``scope=tensor``.

    The ``QuantileClip`` of the PyPI package ``autoclip``, after Seetharaman, Wichern, Pardo,
    Le Roux (2020), AutoClip: Adaptive Gradient Clipping for Source Separation Networks,
    arXiv:2007.14469.
    """

    equation = "c_t = quantile_q(n_{t−window} … n_{t−1})"
    paper = "Seetharaman et al. 2020, arXiv:2007.14469"
    family = "past norms"
    scopes = ("global", "layer", "tensor", "unit", "element")

    q: float = tunable(0.9, low=0.05, high=0.99, at_most=1.0, doc="quantile of the past norms")
    window: int = setting(1000, at_least=1, doc="how many past norms count")

    def remember(self, like: Tensor) -> Memory:
        return {"past": empty(like, None if "q" in self.varying else self.q, self.window)}

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return quantile(memory["past"], q=self.q)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"past": push(memory["past"], seen.norm, seen.valid)}
