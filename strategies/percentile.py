"""AutoClip: let the past gradient norms set the threshold."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gclip import Memory, Seen, Strategy, register, setting, tunable
from gclip.core.quantile import empty, push, quantile


@register("percentile", "autoclip")
@dataclass(frozen=True, kw_only=True)
class Percentile(Strategy):
    """Clip to the p-th percentile of all gradient norms so far, this step's included.

    c_t = percentile_p(n_1 … n_t), linearly interpolated; then g ← g · min(1, c_t/n_t). The first
    step's limit is its own norm, and so it is not clipped. With a `window`, only the last `window`
    norms count (the paper keeps all). The cost of a step stays O(log t): see `gclip.core.quantile`.

    Seetharaman, Wichern, Pardo, Le Roux (2020), AutoClip: Adaptive Gradient Clipping for Source
    Separation Networks, arXiv:2007.14469.
    """

    equation = "c_t = percentile_p(n_1 … n_t); then g ← g · min(1, c_t/n_t)"
    paper = "Seetharaman et al. 2020, arXiv:2007.14469"
    family = "past norms"
    scopes = ("global", "layer", "tensor", "unit", "element")

    p: float = tunable(10.0, low=1.0, high=99.0, at_most=100.0, doc="percentile of the past norms")
    window: int | None = setting(None, at_least=1, doc="how many past norms count; none for all")

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return quantile(memory["past"], extra=seen.norm, q=self.p / 100)

    def remember(self, like: Tensor) -> Memory:
        # The fast history is laid out around one quantile; a schedule asks for another every step.
        return {"past": empty(like, None if "p" in self.varying else self.p / 100, self.window)}

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"past": push(memory["past"], seen.norm, seen.valid)}
