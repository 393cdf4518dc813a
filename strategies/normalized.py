"""Give every gradient the same norm: only its direction counts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gclip import Memory, RuleName, Seen, Strategy, register, setting, tunable


@register("normalized", "nsgd")
@dataclass(frozen=True, kw_only=True)
class Normalized(Strategy):
    """Rescale every gradient, small ones too: g ← g · s/(‖g‖ + ε).

    The norm left is s·n/(n + ε): s for all but the tiniest gradients, and zero stays zero. With
    ``rule=scale`` only larger gradients are scaled, g ← g · min(1, s/(‖g‖ + ε)).

    Hazan, Levy, Shalev-Shwartz (2015), Beyond Convexity: Stochastic Quasi-Convex Optimization,
    arXiv:1507.02030 (normalized SGD); with s and ε as ``optax.normalize_by_update_norm``.
    """

    equation = "g ← g · s/(‖g‖ + ε)"
    paper = "Hazan et al. 2015, arXiv:1507.02030"
    family = "fixed limit"
    sides = ("gradient", "update", "sample")
    rules = ("normalize", "scale")

    target: float = tunable(1.0, low=1e-3, high=100.0, log=True, doc="norm that is left, s")
    eps: float = setting(1e-6, at_least=0, doc="added to the norm divided by, ε")
    rule: RuleName = "normalize"

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.target * (seen.norm / (seen.norm + self.eps))
