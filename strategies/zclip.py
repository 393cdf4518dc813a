"""ZClip: clip the norms that stand out from their running mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Memory, Seen, Strategy, register, setting, tunable

EPS = 1e-6


@register("zclip", "zscore")
@dataclass(frozen=True, kw_only=True)
class ZClip(Strategy):
    """Clip outliers among the norms: where z = (n − μ)/(σ + 1e-6) > z_t, n ← μ + z_t·σ·(z_t/z).

    So the further out, the lower the limit (``mode=adaptive``); with ``mode=mean`` it is μ, with
    ``cap`` μ + z_t·σ. `max_norm` bounds all norms besides, also during warm-up.

    Memory: the mean μ and the variance σ² of each group's norms. The first `warmup` norms are
    collected, and give their mean and population variance; the next, by default the 26th, is the
    first that is scored. From there on both are moving averages with `decay`, fed with the norm
    that the z-score leaves: μ first, then σ² with the new μ. As in the authors' code, the cap by
    `max_norm` does not enter them. A norm of zero does not enter either: a mean of zero would
    silence a group for ever.

    Kumar, Owen, Roy Chowdhury, Güra (2025), ZClip: Adaptive Spike Mitigation for LLM Pre-Training,
    arXiv:2504.02507.
    """

    equation = "where z = (n − μ)/(σ + 1e-6) > z_t, n ← μ + z_t·σ·(z_t/z)"
    paper = "Kumar et al. 2025, arXiv:2504.02507"
    family = "past norms"
    scopes = ("global", "layer", "tensor", "unit", "element")
    own_warmup = True

    z_threshold: float = tunable(2.5, low=1.0, high=5.0, above=0, doc="largest z-score, z_t")
    mode: str = setting(
        "adaptive", choices=("adaptive", "mean", "cap"), doc="what an outlier is clipped to"
    )
    max_norm: float | None = setting(1.0, at_least=0, doc="largest norm of all; none for no cap")
    decay: float = setting(0.97, at_least=0, below=1, doc="of the moving mean and variance")
    warmup: int = setting(25, at_least=0, doc="norms collected before the z-score clips")

    def remember(self, like: Tensor) -> Memory:
        return {name: torch.zeros_like(like) for name in ("mean", "var", "count")}

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        bound = torch.where(self._ready(memory), self._by_score(seen.norm, memory), math.inf)
        return bound if self.max_norm is None else bound.clamp(max=self.max_norm)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        norm, mean, var, count = seen.norm, memory["mean"], memory["var"], memory["count"]
        ready = self._ready(memory)
        left = torch.where(ready, torch.minimum(norm, self._by_score(norm, memory)), norm)
        # While collecting, every norm weighs the same: the exact mean and variance so far.
        rate = torch.where(ready, 1 - self.decay, 1 / (count + 1))
        new_mean = mean + rate * (left - mean)
        away = left - new_mean
        square = torch.where(ready, away.square(), away * (left - mean))
        # One square that overflows would be in the variance for ever.
        square = square.clamp(max=torch.finfo(square.dtype).max)
        new = {
            "mean": new_mean,
            "var": var + rate * (square - var),
            "count": (count + 1).clamp(max=max(self.warmup, 1)),
        }
        return {name: torch.where(norm > 0, value, memory[name]) for name, value in new.items()}

    def _ready(self, memory: Memory) -> Tensor:
        ready: Tensor = memory["count"] >= max(self.warmup, 1)
        return ready

    def _by_score(self, norm: Tensor, memory: Memory) -> Tensor:
        """The limit by the z-score alone."""
        mean, std, most = memory["mean"], memory["var"].sqrt(), self.z_threshold
        cap: Tensor = mean + most * std
        if self.mode == "cap":
            return cap
        z = (norm - mean) / (std + EPS)
        bound = mean if self.mode == "mean" else mean + most * std * (most / z)
        # A norm that is no outlier is not clipped, whatever rounding makes of the cap.
        return torch.where(z > most, bound, torch.fmax(cap, norm))
