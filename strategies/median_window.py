"""ScaledAdam's clipping: a multiple of the median of the last norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Memory, Seen, Strategy, register, setting, tunable
from gclip.core import window
from gclip.core.host import on_host
from gclip.core.window import Window

EARLY = (10, 20, 40)


@register("median_window", "scaled_adam")
@dataclass(frozen=True, kw_only=True)
class MedianWindow(Strategy):
    """Clip to twice the usual norm: c = scale · median of the last `window` norms.

    A group's first norm is left out, as in icefall. The limit is set anew at every `window`-th norm
    after it, counting that norm in, and holds until the next. Not to wait for the first full
    window, it is also set at the 10th, 20th and 40th, from those counted so far, and is then twice
    as large, as norms may be changing quickly. So the 11th gradient is the first to be clipped. The
    median of k norms is the one with 2·⌊k/4⌋ smaller ones.

    Memory: the last `window` norms of each group, before clipping, and the limit. icefall weighs
    each tensor's gradient with the size of its weights before it takes the norm; here the norm is
    that of the gradient.

    Yao et al. (2023), Zipformer: A faster and better encoder for automatic speech recognition,
    arXiv:2310.11230; the rule is that of icefall's ``ScaledAdam``.
    """

    equation = "c = scale · median of the last window norms"
    paper = "Yao et al. 2023, arXiv:2310.11230"
    family = "past norms"
    scopes = ("global", "layer", "tensor", "unit", "element")

    scale: float = tunable(2.0, low=1.0, high=10.0, log=True, doc="limit over the median")
    window: int = setting(100, at_least=1, doc="norms per median, and between two")

    def remember(self, like: Tensor) -> Memory:
        return {
            "past": window.empty(like, self.window),
            "limit": torch.full_like(like, math.inf),
        }

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self._updated(window.push(memory["past"], seen.norm, seen.valid), seen, memory)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        past = window.push(memory["past"], seen.norm, seen.valid)
        return {"past": past, "limit": self._updated(past, seen, memory)}

    def _updated(self, past: Window, seen: Seen, memory: Memory) -> Tensor:
        """The limit, set anew where the count of norms says so."""
        old: Tensor = memory["limit"]
        count = past["count"] - 1  # without the group's first
        early = torch.zeros_like(count, dtype=torch.bool)
        for place in EARLY:
            early = early | ((count == place) & (place < self.window))
        due = early | ((count % self.window == 0) & (count > 0))
        if seen.valid is not None:
            due = due & seen.valid
        if on_host(due) and not bool(due.any()):
            return old  # most steps: nothing to sort
        counted = count.unsqueeze(-1)
        slots = torch.arange(self.window, device=counted.device)
        # The first norm lies in slot 0 until the window has come round to it.
        held = (slots <= counted) & ((slots > 0) | (counted >= self.window))
        ordered = torch.where(held, past["values"], math.inf).sort(dim=-1).values
        middle = 2 * (counted.clamp(0, self.window) // 4)
        median = ordered.gather(-1, middle).squeeze(-1)
        return torch.where(due, self.scale * torch.where(early, 2 * median, median), old)
