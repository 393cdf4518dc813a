"""Skip the steps whose norm is far out on the scale of logarithms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Memory, RuleName, Seen, Strategy, register, setting, tunable

LEAST_STD = 1e-3  # so that norms which hardly vary are not skipped for nothing


@register("lognormal_skip", "log_skip")
@dataclass(frozen=True, kw_only=True)
class LogNormalSkip(Strategy):
    """Skip the step when log n > μ + k·σ: norms far beyond those of a log-normal distribution.

    Memory: the moving mean μ and variance σ² of each group's log n, with `decay`, corrected for
    their start, and the weight 1 − decay^t that they have gathered. They bind once that weight is
    above `ready`: by default at the 278th step. The log of a skipped step's norm enters as if it
    had been μ + k·σ, so that one spike cannot widen the limit, but norms that stay large are let
    through in the end. A norm of zero has no logarithm and does not enter.

    The paper names only the rule. The defaults, σ ≥ 0.001 and when it binds are those of the
    authors' framework, Lingvo (``GradNormTracker``), from which two things differ on purpose. It
    takes log(max(n, 0.01) + 1), which for small norms is n itself; here, as in the paper, log n, so
    that the scale of the norms does not matter. And it cuts logs at its cap from the first step on,
    while its mean still climbs from zero: norms near 150 that vary by 5 % then seem to vary by a
    factor of two when it first binds. Here logs enter as they are until it binds.

    With ``rule=scale`` such a step is scaled down instead.

    Chen et al. (2018), The Best of Both Worlds: Combining Recent Advances in Neural Machine
    Translation, arXiv:1804.09849.
    """

    equation = "skip the step when log n > μ + k·σ"
    paper = "Chen et al. 2018, arXiv:1804.09849"
    family = "skips steps"

    sigmas: float = tunable(4.0, low=2.0, high=8.0, doc="deviations above the mean, k")
    decay: float = setting(0.995, at_least=0, below=1, doc="of the moving mean and variance")
    ready: float = setting(0.75, at_least=0, below=1, doc="weight 1 − decay^t from which it binds")
    rule: RuleName = "skip"

    def remember(self, like: Tensor) -> Memory:
        return {name: torch.zeros_like(like) for name in ("mean", "var", "weight")}

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return torch.where(self._binds(memory), self._cap(memory).exp(), math.inf)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        mean, var = memory["mean"], memory["var"]
        log = seen.norm.log()
        log = torch.where(self._binds(memory), torch.minimum(log, self._cap(memory)), log)
        weight = self.decay * memory["weight"] + (1 - self.decay)
        rate = (1 - self.decay) / weight
        away = log - mean
        # E[x²] − E[x]² by increments: the difference of two large numbers would lose the digits.
        new = {
            "mean": mean + rate * away,
            "var": (1 - rate) * (var + rate * away.square()),
            "weight": weight,
        }
        return {name: torch.where(seen.norm > 0, v, memory[name]) for name, v in new.items()}

    def _binds(self, memory: Memory) -> Tensor:
        binds: Tensor = memory["weight"] > self.ready
        return binds

    def _cap(self, memory: Memory) -> Tensor:
        cap: Tensor = memory["mean"] + self.sigmas * memory["var"].sqrt().clamp(min=LEAST_STD)
        return cap
