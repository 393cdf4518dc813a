"""Limit each tensor's norm divided by its number of elements."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gclip import Memory, Scope, Seen, Strategy, register, tunable


@register("average_norm")
@dataclass(frozen=True, kw_only=True)
class AverageNorm(Strategy):
    """Keep each tensor's average norm within c: where ‖g‖/size > c, g ← g · c·size/‖g‖.

    That is a limit of c·size on each group's norm. The "average" divides by the number of
    elements, not by its root (that is `block_rms`), so that large tensors are hardly ever clipped.
    Zero stays zero.

    The equation of TensorFlow 1's ``tf.clip_by_average_norm`` (Google, 2015), which leaves c to
    the user.
    """

    equation = "where ‖g‖/size > c, g ← g · c·size/‖g‖"
    paper = "TensorFlow (Google, 2015)"
    family = "fixed limit"
    sides = ("gradient", "update", "sample")

    max_average: float = tunable(
        1e-3, low=1e-6, high=1.0, log=True, doc="largest norm per element, c"
    )
    scope: Scope = "tensor"

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_average * seen.size
