"""Per-example clipping: no example counts for more than the limit."""

from __future__ import annotations

from dataclasses import dataclass

from gclip import Memory, Seen, Side, Strategy, register, tunable


@register("per_sample", "dp_sgd")
@dataclass(frozen=True, kw_only=True)
class PerSample(Strategy):
    """Clip each example's gradient, then average: g ← mean over i of g_i · min(1, c/‖g_i‖).

    With ``scope=global`` by the norm of all of an example's gradients ("flat" clipping); with
    ``layer``, ``tensor`` or ``unit`` each part by its own norm ("per-layer"). An example whose
    gradient is zero stays zero.

    Not private by itself: DP-SGD also adds noise to the sum, and none is added here.

    Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang (2016), Deep Learning with Differential
    Privacy, arXiv:1607.00133.
    """

    equation = "g ← mean over i of g_i · min(1, c/‖g_i‖)"
    paper = "Abadi et al. 2016, arXiv:1607.00133"
    family = "per example"
    sides = ("sample",)
    rules = ("scale", "normalize", "soft")

    max_norm: float = tunable(
        1.0, low=1e-3, high=100.0, log=True, doc="largest norm of an example's gradient, c"
    )
    side: Side = "sample"

    def limit(self, seen: Seen, memory: Memory) -> float:
        return self.max_norm
