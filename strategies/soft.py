"""Clip smoothly: shrink every gradient a little, large ones a lot."""

from __future__ import annotations

from dataclasses import dataclass

from gclip import Memory, RuleName, Seen, Strategy, register, tunable


@register("soft", "soft_clip")
@dataclass(frozen=True, kw_only=True)
class Soft(Strategy):
    """Shrink without a kink: g ← g · c/(c + ‖g‖). The norm stays below c, whatever it was.

    A gradient far below c hardly changes, one of norm c is halved, and beyond it the norm nears c.
    Zero stays zero; c = 0 gives zero, c = inf changes nothing.

    This is the factor by which the published code of the paper below clips. Its method, mixed
    clipping, is more: the step is −η·(ν·m/(1 + η‖m‖/γ) + (1 − ν)·g/(1 + η‖g‖/γ)), from the momentum
    m and the gradient g, each clipped by itself. Here is one of the two at a time: ν = 0 with
    plain SGD and c = γ/η; ν = 1 with ``side=update``, c = γ and ``SGD(momentum=β, dampening=β)``.
    (torch starts m at the first gradient, the paper at zero.)

    B. Zhang, Jin, Fang, Wang (2020), Improved Analysis of Clipping Algorithms for Non-convex
    Optimization, arXiv:2010.02519.
    """

    equation = "g ← g · c/(c + ‖g‖)"
    paper = "B. Zhang et al. 2020, arXiv:2010.02519"
    family = "fixed limit"
    sides = ("gradient", "update", "sample")
    rules = ("soft",)

    max_norm: float = tunable(1.0, low=1e-3, high=100.0, log=True, doc="norm never exceeded, c")
    rule: RuleName = "soft"

    def limit(self, seen: Seen, memory: Memory) -> float:
        return self.max_norm
