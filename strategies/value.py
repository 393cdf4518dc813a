"""Clamp every element: the oldest clipping there is."""

from __future__ import annotations

from dataclasses import dataclass

from gclip import Band, Limit, Memory, RuleName, Scope, Seen, Strategy, register, setting, tunable


@register("value", "clip_value", "clamp")
@dataclass(frozen=True, kw_only=True)
class Value(Strategy):
    """Clamp each element: g_i ← min(max(g_i, −c), c). Changes the gradient's direction.

    With `lower` the bounds are not symmetric: g_i ← min(max(g_i, lower), c).

    Mikolov (2012), Statistical Language Models Based on Neural Networks, PhD thesis, Brno.
    The same as ``torch.nn.utils.clip_grad_value_``, and TensorFlow's ``clip_by_value``.
    """

    equation = "g_i ← min(max(g_i, −c), c)"
    paper = "Mikolov 2012"
    family = "fixed limit"
    scopes = ("element",)
    rules = ("clamp",)

    clip_value: float = tunable(1.0, low=1e-4, high=10.0, log=True, doc="largest element, c")
    lower: float | None = setting(None, at_most=0.0, doc="smallest element; −c where none")
    scope: Scope = "element"
    rule: RuleName = "clamp"

    def limit(self, seen: Seen, memory: Memory) -> Limit:
        return self.clip_value if self.lower is None else Band(self.lower, self.clip_value)
