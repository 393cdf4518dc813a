"""δ-GClip: clip to a norm, but never shrink by more than a given factor."""

from __future__ import annotations

from dataclasses import dataclass

from gclip import Memory, Seen, Strategy, register, tunable


@register("delta", "delta_gclip")
@dataclass(frozen=True, kw_only=True)
class Delta(Strategy):
    """Clip with a smallest factor: g ← g · min(1, max(δ, c/‖g‖)).

    As `norm` for gradients up to c/δ; larger ones are multiplied by δ, so that the step does not
    vanish and the method provably reaches the minimum of wide networks. δ is the setting `floor`
    that all strategies have; 0 gives `norm`. The norm left may exceed c. Zero stays zero.

    Tucat, Mukherjee, Sen, Sun, Rivasplata (2024), Regularized Gradient Clipping Provably Trains
    Wide and Deep Neural Networks, arXiv:2404.08624.
    """

    equation = "g ← g · min(1, max(δ, c/‖g‖))"
    paper = "Tucat et al. 2024, arXiv:2404.08624"
    family = "fixed limit"
    sides = ("gradient", "update", "sample")
    rules = ("scale",)

    max_norm: float = tunable(0.1, low=1e-3, high=100.0, log=True, doc="norm clipped to, c")
    floor: float = tunable(
        1e-3, low=1e-5, high=0.5, log=True, at_most=1.0, doc="smallest factor, δ"
    )

    def limit(self, seen: Seen, memory: Memory) -> float:
        return self.max_norm
