"""Limit each tensor's root mean square, so that one number fits tensors of every size."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gclip import Memory, Scope, Seen, Strategy, register, tunable


@register("block_rms")
@dataclass(frozen=True, kw_only=True)
class BlockRMS(Strategy):
    """Keep each tensor's root mean square within c: g ← g / max(1, rms(g)/c).

    With rms(g) = ‖g‖/√size that is a limit of c·√size on each group's norm. A group of more
    elements may have a larger norm, an element of it no larger share. Zero stays zero.

    The equation of ``optax.clip_by_block_rms`` (DeepMind, 2020), which leaves c to the user; the
    same limit on the optimizer's update is `update_rms`.
    """

    equation = "g ← g / max(1, rms(g)/c)"
    paper = "optax (DeepMind, 2020)"
    family = "fixed limit"
    sides = ("gradient", "update", "sample")

    max_rms: float = tunable(0.01, low=1e-5, high=1.0, log=True, doc="largest root mean square, c")
    scope: Scope = "tensor"

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_rms * seen.size.sqrt()
