"""CClip and ACClip: clip each element of the momentum, at a fixed or at a learned size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gclip import Elements, Memory, Rate, Scope, Side, Transform, register, setting, tunable
from gclip.core.pieces import in_pieces


def clip_momentum(update: Tensor, lr: Rate, limit: Tensor | float, eps: float) -> Tensor:
    """The update −lr·m with each element of m multiplied by min(1, limit/(|m| + ε)).

    With a learning rate of zero there is no update and nothing to clip: 0/0 counts as 1.

    Args:
        update: the optimizer's update, ``(…, elements)``.
        lr: its learning rate, a number or ``(…, 1)``.
        limit: the largest |m|, τ.
        eps: added to |m|, ε.
    """
    size = (update.abs() / lr).add_(eps)
    return (limit / size).nan_to_num_(nan=1.0).clamp_(max=1.0).mul_(update)


@register("cclip")
@dataclass(frozen=True, kw_only=True)
class CClip(Transform):
    """Clip each element of the momentum m: m ← m · min(1, τ/(|m| + ε)).

    Works on the update (``side=update``), from which it reads m = −δ/lr. That is the momentum
    where the optimizer makes the update −lr·m, as plain SGD does:
    ``SGD(lr=…, momentum=0.9, dampening=0.9)``, not ``nesterov``, gives the paper's
    m ← β·m + (1 − β)·g. (torch starts m at the first gradient, the paper at zero; the difference
    fades as β^t.) Without dampening m is 1/(1 − β) as large, and so must τ be. SGD's weight decay
    is part of g, and so of m. After another optimizer, such as Adam, it is the preconditioned
    step that is clipped. No memory. The paper names no τ.

    Zhang, Karimireddy, Veit, Kim, Reddi, Kumar, Sra (2020), Why are Adaptive Methods Good for
    Attention Models?, arXiv:1912.03194.
    """

    equation = "m ← m · min(1, τ/(|m| + ε))"
    paper = "Zhang et al. 2020, arXiv:1912.03194"
    family = "changes elements"
    scopes = ("element",)
    sides = ("update",)

    threshold: float = tunable(
        0.01, low=1e-5, high=10.0, log=True, above=0, doc="largest element of the momentum, τ"
    )
    eps: float = setting(1e-5, above=0, doc="added to |m|, ε")
    scope: Scope = "element"
    side: Side = "update"

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        (clipped,) = in_pieces(self._clipped, seen.values, seen.lr)
        return clipped, {}

    def _clipped(self, update: Tensor, lr: Rate) -> tuple[Tensor]:
        return (clip_momentum(update, lr, self.threshold, self.eps),)


@register("acclip")
@dataclass(frozen=True, kw_only=True)
class ACClip(Transform):
    """Clip each element of the momentum m at a size learned from its gradients.

    τ^α ← β₂·τ^α + (1 − β₂)·|g|^α, from zero and without bias correction, this step's g included;
    then m ← m · min(1, τ/(|m| + ε)).

    Works on the update (``side=update``), from which it reads m = −δ/lr. That is the momentum
    where the optimizer makes the update −lr·m: ``SGD(lr=…, momentum=0.9, dampening=0.9)``, not
    ``nesterov``, gives the paper's m ← β·m + (1 − β)·g. (torch starts m at the first gradient, the
    paper at zero; the difference fades as β^t.) SGD's weight decay is part of m, but not of the g
    that τ learns from: leave it at 0 for the paper's method. After another optimizer the
    threshold and what it clips have different units.

    Memory: one number an element, as much as the gradient.

    Zhang, Karimireddy, Veit, Kim, Reddi, Kumar, Sra (2020), Why are Adaptive Methods Good for
    Attention Models?, arXiv:1912.03194.
    """

    equation = "τ^α ← β₂·τ^α + (1 − β₂)·|g|^α; then m ← m · min(1, τ/(|m| + ε))"
    paper = "Zhang et al. 2020, arXiv:1912.03194"
    family = "changes elements"
    scopes = ("element",)
    sides = ("update",)

    alpha: float = tunable(1.0, low=1.0, high=2.0, above=0, doc="which moment of g sets τ, α")
    decay: float = setting(0.99, at_least=0, below=1, doc="how τ forgets, β₂")
    eps: float = setting(1e-5, above=0, doc="added to |m|, ε")
    scope: Scope = "element"
    side: Side = "update"

    def remember(self, like: Tensor) -> Memory:
        return {"power": torch.zeros_like(like)}

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        clipped, power = in_pieces(self._clipped, seen.values, seen.grad, memory["power"], seen.lr)
        return clipped, {"power": power}

    def _clipped(
        self, update: Tensor, grad: Tensor, power: Tensor, lr: Rate
    ) -> tuple[Tensor, Tensor]:
        # A power that overflows would switch the limit off for ever.
        new = grad.abs().pow_(self.alpha).clamp_(max=torch.finfo(grad.dtype).max)
        power = torch.lerp(power, new, 1 - self.decay)
        limit = power.pow(1 / self.alpha)
        return clip_momentum(update, lr, limit, self.eps), power
