"""Limit the root mean square of what the optimizer is about to change, as Adafactor does."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gclip import Memory, Scope, Seen, Side, Strategy, register, tunable


@register("update_rms")
@dataclass(frozen=True, kw_only=True)
class UpdateRMS(Strategy):
    """Keep each tensor's update within a root mean square of d: u ← u / max(1, rms(u)/d).

    u is the optimizer's update before the learning rate. What is measured is the change of the
    parameters, δ = −lr·u, and so the limit on ‖δ‖ is d·√size·lr. With weight decay δ holds the
    decay as well, which counts and shrinks with the rest; the papers clip u before they add it.
    Zero stays zero; a learning rate of 0 changes nothing anyway.

    Shazeer, Stern (2018), Adafactor: Adaptive Learning Rates with Sublinear Memory Cost,
    arXiv:1804.04235 (d = 1); Wortsman et al. (2023), Stable and low-precision training for
    large-scale vision-language models, arXiv:2304.13013 (StableAdamW: the same for AdamW, but by
    the rms of g/√v without momentum, where this one measures the whole update).
    """

    equation = "u ← u / max(1, rms(u)/d)"
    paper = "Shazeer & Stern 2018, arXiv:1804.04235"
    family = "fixed limit"
    sides = ("update",)

    max_rms: float = tunable(1.0, low=0.01, high=10.0, log=True, doc="largest rms of u, d")
    scope: Scope = "tensor"
    side: Side = "update"

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_rms * seen.size.sqrt() * seen.lr
