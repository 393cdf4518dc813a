"""AGGC: keep each module's norm in a band around its own moving average."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import (
    Band,
    Limit,
    Memory,
    Scope,
    Seen,
    Strategy,
    UsageError,
    register,
    setting,
    tunable,
)


@register("aggc", "group_band")
@dataclass(frozen=True, kw_only=True)
class AGGC(Strategy):
    """Keep each module's norm in a band: n ← min(n, high·S), S the moving average of n.

    With `scale_up` smaller norms are raised to low·S too, by at most the factor `most`. `floor`
    is the smallest factor when scaling down. It is 0.9 in the authors' runs, which holds for
    spikes too: set ``floor=0`` to bring every norm down to the limit.

    Memory: S for each group, S ← β·S + (1 − β)·n̂ with n̂ the norm after clipping. It starts at
    the first norm, which is not clipped. (In the authors' code the first passes too, but S starts
    at 0 and so shrinks all the next ones, whatever their norms.) A norm of zero does not enter.

    The authors move low and high in the course of a run; a schedule does that:
    ``aggc(high=linear(0.7, 1))``.

    Li, Wu, Chang (2026), AGGC: Adaptive Group Gradient Clipping for Stabilizing Large Language
    Model Training, arXiv:2601.11864.
    """

    equation = "n ← min(n, high·S), S the moving average of n"
    paper = "Li et al. 2026, arXiv:2601.11864"
    family = "past norms"
    rules = ("scale",)

    high: float = tunable(1.0, low=0.5, high=4.0, log=True, doc="upper end of the band over S")
    low: float = tunable(0.95, low=0.1, high=1.0, doc="lower end of the band over S")
    scale_up: bool = setting(False, doc="whether norms below the band are raised")
    most: float = setting(1.1, at_least=1.0, doc="largest factor when scaling up")
    decay: float = setting(0.98, at_least=0, below=1, doc="of the moving average S, β")
    scope: Scope = "layer"
    floor: float = setting(0.9, at_least=0, at_most=1, doc="smallest factor when scaling down")

    def validate(self) -> None:
        if self.scale_up and self.low > self.high:
            raise UsageError(
                f"aggc: low <= high must hold, but got low={self.low:g}, high={self.high:g}"
            )

    def remember(self, like: Tensor) -> Memory:
        return {"mean": torch.full_like(like, math.inf)}

    def limit(self, seen: Seen, memory: Memory) -> Limit:
        mean: Tensor = memory["mean"]
        high = self.high * mean
        if not self.scale_up:
            return high
        low = self.low * torch.where(mean.isinf(), 0.0, mean)
        return Band(torch.minimum(low, self.most * seen.norm), high)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        mean = memory["mean"]
        new = torch.where(mean.isinf(), clipped_norm, torch.lerp(clipped_norm, mean, self.decay))
        return {"mean": torch.where(clipped_norm > 0, new, mean)}
