"""What a clipping strategy is: a decision about how large gradients may be.

A strategy never touches a gradient. The clipper measures the norm of each group of gradients,
asks the strategy for a limit, and clips; so a strategy is a few lines about the limit, and is
for that reason fast, the same on CPU and GPU, and stackable over many runs.

Shapes: ``(…, groups)`` throughout. The last dimension counts the groups of the scope (one for
``global``), any dimensions before it count runs trained side by side. Write with the last
dimension, broadcast, and never branch in Python on a tensor's value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from gclip.errors import UsageError, suggestion
from gclip.fields import check

Scope: TypeAlias = Literal["global", "layer", "tensor", "unit", "element"]
RuleName: TypeAlias = Literal["scale", "clamp", "normalize", "soft", "skip"]
SCOPES: tuple[str, ...] = get_args(Scope)
RULES: tuple[str, ...] = get_args(RuleName)

Memory: TypeAlias = Mapping[str, Any]
"""What a strategy keeps between steps: tensors, or a nested dict owned by a helper."""


class Band(NamedTuple):
    """Limits from both sides: norms (or, when clamping, elements) stay within ``low..high``."""

    low: Tensor | float
    high: Tensor | float


Limit: TypeAlias = Tensor | float | Band


class Seen:
    """What a strategy may look at in one step. Everything not asked for is never measured.

    Attributes:
        step: how many steps this clipper has made before this one, counted on the host.
        valid: ``None`` when every group's norm may enter memory, else a bool tensor
            ``(…, groups)``: False for groups without a gradient and for steps whose gradients
            are not finite. Only memory helpers need it; plain entries are guarded for you.
    """

    def __init__(
        self,
        norm: Tensor | Callable[[], Tensor],
        *,
        step: int = 0,
        weight_norm: Tensor | Callable[[], Tensor] | None = None,
        size: Tensor | Callable[[], Tensor] | None = None,
        valid: Tensor | None = None,
    ) -> None:
        self._norm = norm
        self._weight_norm = weight_norm
        self._size = size
        self.step = step
        self.valid = valid

    @property
    def norm(self) -> Tensor:
        """Each group's gradient norm, float32, ``(…, groups)``."""
        norm = self._norm
        if not isinstance(norm, Tensor):
            norm = self._norm = norm()
        return norm

    @cached_property
    def weight_norm(self) -> Tensor:
        """Each group's parameter norm, float32, ``(…, groups)``; measured when first read."""
        return _given(self._weight_norm, "weight_norm")

    @cached_property
    def size(self) -> Tensor:
        """How many elements each group has, float32, ``(groups,)``."""
        return _given(self._size, "size")

    @cached_property
    def global_norm(self) -> Tensor:
        """The L2 norm over all groups, float32, ``(…, 1)``."""
        norm: Tensor = torch.linalg.vector_norm(self.norm, dim=-1, keepdim=True)
        return norm


def _given(value: Tensor | Callable[[], Tensor] | None, name: str) -> Tensor:
    if value is None:
        raise UsageError(f"{name} was read, but this call to the strategy did not provide it")
    return value() if callable(value) else value


@dataclass(frozen=True, kw_only=True)
class Strategy(ABC):
    """Base class of all strategies: subclass it, decorate with ``@register(name)``, write `limit`.

    Two settings are shared by all: `scope` says which gradients share one norm, `rule` what
    happens to a group beyond its limit::

        scale      multiply by limit/norm: exactly the limit is left
        clamp      cut each element at ±limit; the norm measured is the largest element
        normalize  always multiply by limit/norm, also below the limit
        soft       always multiply by limit/(limit + norm), which never exceeds the limit
        skip       skip the whole step (every gradient becomes zero)

    Override a default by redeclaring the field
    (``scope: Scope = "unit"``); restrict the choices through `scopes` and `rules`.
    """

    name: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    scopes: ClassVar[tuple[str, ...]] = ("global", "layer", "tensor", "unit")
    rules: ClassVar[tuple[str, ...]] = RULES

    scope: Scope = "global"
    rule: RuleName = "scale"

    def __post_init__(self) -> None:
        """Validate every field; `UsageError` names the value, the rule and the choices."""
        owner = self.name or type(self).__name__
        for f in fields(self):
            value = check(owner, type(self), f.name, getattr(self, f.name))
            object.__setattr__(self, f.name, value)
        for what, choices in (("scope", self.scopes), ("rule", self.rules)):
            value = getattr(self, what)
            if value not in choices:
                raise UsageError(
                    f"{owner}: {what} {value!r} makes no sense here"
                    f"{suggestion(value, choices)} (choices: {', '.join(choices)})"
                )

    @property
    def order(self) -> float:
        """Which p-norm the clipper measures (2 unless a strategy says otherwise)."""
        return 2.0

    @abstractmethod
    def limit(self, seen: Seen, memory: Memory) -> Limit:
        """The largest norm each group may have: a number, or a tensor that broadcasts to
        ``(…, groups)``; a `Band` to bound norms from below too. `memory` is only read here."""

    def remember(self, like: Tensor) -> Memory:
        """The memory before the first step, from zeros `like` ``(…, groups)`` float32."""
        return {}

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        """The entries of `memory` that this step changes, as new tensors.

        Called after clipping, with each group's norm before (``seen.norm``) and after
        (`clipped_norm`). Groups whose gradient is missing or not finite keep their old entries.
        """
        return {}

    def __str__(self) -> str:
        """The spelling that `gclip.parse` reads back: the name and every field not at default."""
        from gclip.spelling import spell

        return spell(self)


def is_strategy_class(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Strategy) and is_dataclass(cls)
