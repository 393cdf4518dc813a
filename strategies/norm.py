"""Scale the gradient down to a fixed norm: the one-line default of most training runs."""

from __future__ import annotations

from dataclasses import dataclass

from gclip import Memory, Seen, Strategy, register, setting, tunable


@register("norm", "clip_norm")
@dataclass(frozen=True, kw_only=True)
class Norm(Strategy):
    """Rescale to a fixed norm: g ← g · min(1, c/‖g‖_p). Keeps the gradient's direction.

    With ``scope=tensor`` each tensor by its own norm (TensorFlow's ``clip_by_norm``, Keras'
    ``clipnorm``); the default is the norm of all together (``clip_by_global_norm``,
    ``torch.nn.utils.clip_grad_norm_``).

    Pascanu, Mikolov, Bengio (2013), On the difficulty of training recurrent neural networks,
    arXiv:1211.5063.
    """

    equation = "g ← g · min(1, c/‖g‖_p)"
    paper = "Pascanu et al. 2013, arXiv:1211.5063"
    family = "fixed limit"
    sides = ("gradient", "update", "sample")
    scopes = ("global", "layer", "tensor", "unit", "element")

    max_norm: float = tunable(1.0, low=1e-3, high=100.0, log=True, doc="largest norm, c")
    p: float = setting(2.0, above=0, doc="which p-norm; inf for the largest element")

    @property
    def order(self) -> float:
        return self.p

    def limit(self, seen: Seen, memory: Memory) -> float:
        return self.max_norm
