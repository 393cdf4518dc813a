"""Clippy: shrink an update so that no weight changes by more than a share of itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Elements, Memory, Side, Transform, register, setting, tunable
from gclip.core.host import on_host


@register("clippy")
@dataclass(frozen=True, kw_only=True)
class Clippy(Transform):
    """Shrink each tensor's update δ by one factor until no weight moves too far.

    δ ← δ · min(1, min_i (λ_r·|w_i| + λ_a)/|δ_i|), where w are the weights before the step, and
    elements with δ_i = 0 do not count. The direction is kept, and no weight changes by more than
    λ_r of itself plus λ_a. One weight near zero holds its whole tensor back, to λ_a at first: raise
    `absolute` where weights start at zero.

    Works on the update alone (``side=update``), which holds the learning rate, the optimizer's
    preconditioning and its weight decay: use `gclip.attach` or the trainer. No memory.

    Tang, Drori, Chang, Sathiamoorthy, Gilmer, Wei, Yi, Hong, Chi (2023), Improving Training
    Stability for Multitask Ranking Models in Recommender Systems, arXiv:2302.09178.
    """

    equation = "δ ← δ · min(1, min_i (λ_r·|w_i| + λ_a)/|δ_i|)"
    paper = "Tang et al. 2023, arXiv:2302.09178"
    family = "relative to weights"
    sides = ("update",)

    relative: float = tunable(
        0.1, low=0.01, high=1.0, log=True, doc="largest change as a share of the weight, λ_r"
    )
    absolute: float = setting(1e-7, above=0, doc="change that every weight may make, λ_a")
    side: Side = "update"

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values = seen.values
        allowed = seen.weight.abs().mul_(self.relative).add_(self.absolute)
        share = allowed.div_(values.abs())  # inf where nothing is updated
        factor = share.amin(dim=-1, keepdim=True)
        if not on_host(factor) or bool(factor.isnan().any()):
            # A weight that is NaN and not updated does not count, either.
            factor = torch.where(values == 0, 1.0, share).amin(dim=-1, keepdim=True)
        return values * factor.clamp(max=1.0), {}
