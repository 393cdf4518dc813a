"""Automatic clipping: normalize each example's gradient, with no threshold to choose."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gclip import Memory, RuleName, Seen, Side, Strategy, register, setting, tunable


@register("automatic", "auto_s")
@dataclass(frozen=True, kw_only=True)
class Automatic(Strategy):
    """Normalize each example's gradient, then average: g ← mean over i of g_i · R/(‖g_i‖ + γ).

    The norm left is R·n/(n + γ), below R. γ > 0 keeps small gradients smaller than large ones,
    which the paper needs for convergence. R only rescales the learning rate, and so is no threshold
    to tune. Zero stays zero. On the other sides: the whole gradient, or the update.

    Not private by itself: no noise is added.

    Bu, Wang, Zha, Karypis (2022), Automatic Clipping: Differentially Private Deep Learning Made
    Easier and Stronger, arXiv:2206.07136 (there "AUTO-S").
    """

    equation = "g ← mean over i of g_i · R/(‖g_i‖ + γ)"
    paper = "Bu et al. 2022, arXiv:2206.07136"
    family = "per example"
    sides = ("sample", "gradient", "update")
    rules = ("normalize",)

    gamma: float = tunable(0.01, low=1e-4, high=1.0, log=True, doc="stability constant, γ")
    max_norm: float = setting(1.0, at_least=0, doc="norm never exceeded, R")
    rule: RuleName = "normalize"
    side: Side = "sample"

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_norm * (seen.norm / (seen.norm + self.gamma))
