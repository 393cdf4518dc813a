"""Skip the steps whose norm is a multiple of the usual one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gclip import Memory, RuleName, Seen, Strategy, register, setting, tunable
from gclip.core import ema


@register("ratio_skip", "axlearn")
@dataclass(frozen=True, kw_only=True)
class RatioSkip(Strategy):
    """Skip the step when n > k·m, with m the moving average of the norms of accepted steps.

    The first step is never skipped. (In axlearn m is 1 before it, on purpose positive: there a
    first norm of 20 is skipped, and so is every later one that is as large.)

    Memory: m for each group, corrected for its start. The norms of a skipped step do not enter,
    nor do norms of zero. Where norms grow beyond the ratio and stay there, every step is skipped
    from then on: choose k large, as a safety net.

    Apple's axlearn, ``skip_and_clip_by_global_norm`` with ``drop_norm_by_grad_norm_ema``
    (thresholds of 20, 40 and 100 times the average, of which the least decides; it suggests the
    decay 0.99).
    """

    equation = "skip the step when n > k·m, m the moving average of accepted norms"
    paper = "Apple's axlearn"
    family = "skips steps"

    ratio: float = tunable(20.0, low=2.0, high=100.0, log=True, doc="limit over the average, k")
    decay: float = setting(0.99, at_least=0, below=1, doc="of the moving average")
    rule: RuleName = "skip"

    def remember(self, like: Tensor) -> Memory:
        return {"mean": ema.empty(like)}

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.ratio * ema.mean(memory["mean"])

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        accepted = seen.norm > 0
        if seen.step >= self.warmup:  # before, the limit does not bind
            over = seen.norm > self.limit(seen, memory)
            # One group beyond its limit stops the step of all.
            accepted &= ~(over.any(dim=-1, keepdim=True) if self.rule == "skip" else over)
        if seen.valid is not None:
            accepted &= seen.valid
        return {"mean": ema.push(memory["mean"], seen.norm, self.decay, accepted)}
