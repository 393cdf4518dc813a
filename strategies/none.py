"""No clipping: the baseline that every comparison needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gclip import Memory, Seen, Strategy, register


@register("none", "unclipped")
@dataclass(frozen=True, kw_only=True)
class Unclipped(Strategy):
    """Never clip: the limit is infinite. Norms are measured and recorded all the same.

    Steps whose gradients are not finite are still handled by the clipper's `nonfinite` policy.
    """

    equation = "g ← g"
    paper = "the baseline"
    family = "fixed limit"
    sides = ("gradient", "update", "sample")
    scopes = ("global", "layer", "tensor", "unit", "element")
    rules = ("scale",)

    def limit(self, seen: Seen, memory: Memory) -> float:
        return math.inf
