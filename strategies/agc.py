"""Adaptive gradient clipping: limit each unit's gradient by the size of its weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gclip import Memory, Scope, Seen, Strategy, register, setting, tunable


@register("agc")
@dataclass(frozen=True, kw_only=True)
class AGC(Strategy):
    """Keep each unit's gradient small beside its weights: ‖g_u‖ ≤ λ · max(‖w_u‖, ε).

    Where it is larger, g_u ← g_u · λ·max(‖w_u‖, ε)/‖g_u‖. A unit is one output row or filter
    (norms over dimensions 1…); biases and gains are one unit each. The floor ε lets weights
    that start at zero train. The paper leaves the last linear layer unclipped:
    ``Clipper(model, "agc", exclude=["fc.weight"])``.

    Brock, De, Smith, Simonyan (2021), High-Performance Large-Scale Image Recognition Without
    Normalization, arXiv:2102.06171.
    """

    equation = "‖g_u‖ ≤ λ · max(‖w_u‖, ε)"
    paper = "Brock et al. 2021, arXiv:2102.06171"
    family = "relative to weights"
    sides = ("gradient", "update", "sample")

    clip_factor: float = tunable(0.01, low=1e-3, high=1.0, log=True, doc="largest ratio, λ")
    eps: float = setting(1e-3, above=0, doc="floor of the weights' norm, ε")
    scope: Scope = "unit"

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.clip_factor * seen.weight_norm.clamp(min=self.eps)
