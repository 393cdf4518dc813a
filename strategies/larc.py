"""LARC in its clipping mode: no tensor's learning rate beyond what its weights allow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Memory, Scope, Seen, Strategy, register, setting, tunable


@register("larc", "trust_clip")
@dataclass(frozen=True, kw_only=True)
class LARC(Strategy):
    """Limit each tensor's local learning rate: g ← g · min(1, η‖w‖/(‖g‖ + wd·‖w‖ + ε)/lr).

    So the plain SGD step lr·‖g‖ stays within η‖w‖. lr and wd are the optimizer's learning rate
    and weight decay. The limit on ‖g‖ is η‖w‖/lr · ‖g‖/(‖g‖ + wd·‖w‖ + ε). A tensor whose weights
    or gradient are all zero is left alone, and so zero-initialised weights train.

    Unlike NVIDIA's apex (BSD-3), which moves the decay term into the gradient, (g + wd·w)·factor,
    and so scales it too, the optimizer here decays the weights as always; without weight decay
    both are the same.

    You, Gitman, Ginsburg (2017), Large Batch Training of Convolutional Networks,
    arXiv:1708.03888 (η‖w‖/‖g‖ as the learning rate); the clipping mode and η as in apex.
    """

    equation = "g ← g · min(1, η‖w‖/(‖g‖ + wd·‖w‖ + ε)/lr)"
    paper = "You et al. 2017, arXiv:1708.03888"
    family = "relative to weights"
    sides = ("gradient",)

    trust: float = tunable(0.02, low=1e-4, high=1.0, log=True, above=0.0, doc="trust, η")
    eps: float = setting(1e-8, at_least=0, doc="added to the norms divided by, ε")
    scope: Scope = "tensor"

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        weight, norm = seen.weight_norm, seen.norm
        share = norm / (norm + seen.weight_decay * weight + self.eps)
        limit = self.trust * weight * share / seen.lr
        return torch.where((weight > 0) & (norm > 0), limit, math.inf)
