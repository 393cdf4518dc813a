"""Skip the steps whose norm is many deviations above the last ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Memory, RuleName, Seen, Strategy, UsageError, register, setting, tunable
from gclip.core import window


@register("sigma_skip", "olmo")
@dataclass(frozen=True, kw_only=True)
class SigmaSkip(Strategy):
    """Skip the step when n > mean + k·std of the last `window` norms, this step's left out.

    The deviation is that of a sample (n − 1). Nothing is skipped before a group has `start` norms:
    with 63 the 64th step is the first that can be, as in OLMo-core, whose half a window counts the
    step itself.

    Memory: the last `window` norms of each group, those of skipped steps included: norms that
    stay large are let through once they have filled enough of the window.

    Walsh et al. (2025), 2 OLMo 2 Furious, arXiv:2501.00656; the rule is that of OLMo-core's
    ``SkipStepOptimizer``, which holds the loss to it as well.
    """

    equation = "skip the step when n > mean + k·std of the last window norms"
    paper = "Walsh et al. 2025, arXiv:2501.00656"
    family = "skips steps"

    sigmas: float = tunable(6.0, low=2.0, high=12.0, doc="deviations above the mean, k")
    window: int = setting(128, at_least=2, doc="how many past norms count")
    start: int = setting(63, at_least=2, doc="norms before steps are skipped")
    rule: RuleName = "skip"

    def validate(self) -> None:
        if self.start > self.window:
            raise UsageError(
                f"sigma_skip: start <= window must hold, but got start={self.start}, "
                f"window={self.window}"
            )

    def remember(self, like: Tensor) -> Memory:
        return {"past": window.empty(like, self.window)}

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        past = memory["past"]
        bound = window.mean(past) + self.sigmas * window.deviation(past, correction=1)
        return torch.where(window.count(past) >= self.start, bound, math.inf)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"past": window.push(memory["past"], seen.norm, seen.valid)}
