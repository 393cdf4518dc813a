"""What a clipping strategy is: a decision about how large gradients may be.

A strategy never touches a gradient. The clipper measures the norm of each group of gradients,
asks the strategy for a limit, and clips; so a strategy is a few lines about the limit, and is
for that reason fast, the same on CPU and GPU, and stackable over many runs.

Shapes: ``(…, groups)`` throughout. The last dimension counts the groups of the scope (one for
``global``), any dimensions before it count runs trained side by side. Write with the last
dimension, broadcast, and never branch in Python on a tensor's value.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from gclip.core.fields import check, setting
from gclip.core.schedules import ends_of, varying
from gclip.errors import UsageError, suggestion

Scope: TypeAlias = Literal["global", "layer", "tensor", "unit", "element"]
RuleName: TypeAlias = Literal["scale", "clamp", "normalize", "soft", "skip", "transform"]
Side: TypeAlias = Literal["gradient", "update", "sample"]
SCOPES: tuple[str, ...] = get_args(Scope)
SIDES: tuple[str, ...] = get_args(Side)
RULES: tuple[str, ...] = ("scale", "clamp", "normalize", "soft", "skip")
SHARED = ("scope", "rule", "side", "warmup", "floor")
"""The settings that all strategies share, in the order in which they are shown."""

Memory: TypeAlias = Mapping[str, Any]
"""What a strategy keeps between steps: tensors, or a nested dict owned by a helper."""


class Band(NamedTuple):
    """Limits from both sides: norms (or, when clamping, elements) stay within ``low..high``."""

    low: Tensor | float
    high: Tensor | float


Limit: TypeAlias = Tensor | float | Band
Rate: TypeAlias = Tensor | float
"""A learning rate or weight decay: one for all groups, or one each."""


class Seen:
    """What a strategy may look at in one step. Everything not asked for is never measured.

    (Plain properties that keep what they found: compilers cannot trace through the lock of
    ``functools.cached_property``.)

    Attributes:
        step: how many steps this clipper has made before this one, counted on the host.
        valid: ``None`` when every group's norm may enter memory, else a bool tensor
            ``(…, groups)``: False for groups without a gradient and for steps whose gradients
            are not finite. Only memory helpers need it; plain entries are guarded for you.
        per_example: True on the side ``sample``, where `norm` is ``(examples, groups)`` and memory
            ``(groups,)``: what enters memory is reduced by `example_mean`.
        total_steps: how many steps there will be, where the clipper was told; else None.
    """

    def __init__(
        self,
        norm: Tensor | Callable[[], Tensor],
        *,
        step: int = 0,
        weight_norm: Tensor | Callable[[], Tensor] | None = None,
        size: Tensor | Callable[[], Tensor] | None = None,
        lr: Rate | Callable[[], Rate] | None = None,
        weight_decay: Rate | Callable[[], Rate] | None = None,
        valid: Tensor | None = None,
        total_steps: int | None = None,
        per_example: bool = False,
    ) -> None:
        self._norm = norm
        self._weight_norm = weight_norm
        self._size = size
        self._lr = lr
        self._weight_decay = weight_decay
        self.step = step
        self.valid = valid
        self.total_steps = total_steps
        self.per_example = per_example

    def example_mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the step's examples, ``(examples, groups)`` to ``(groups,)``.

        For `Strategy.learn` on the side ``sample``; elsewhere `values` as they are. Examples whose
        gradient is not finite do not count.
        """
        if not self.per_example:
            return values
        if self.valid is None:
            return values.mean(dim=0)
        total = torch.where(self.valid, values, 0.0).sum(dim=0)
        return total / self.valid.sum(dim=0).clamp(min=1)

    @property
    def norm(self) -> Tensor:
        """Each group's gradient norm, ``(…, groups)``: float32, of float64 gradients float64."""
        norm = self._norm
        if not isinstance(norm, Tensor):
            norm = self._norm = norm()
        return norm

    @property
    def weight_norm(self) -> Tensor:
        """Each group's parameter norm, like `norm`, ``(…, groups)``; measured when first read."""
        self._weight_norm = value = _given(self._weight_norm, "weight_norm")
        return value

    @property
    def size(self) -> Tensor:
        """How many elements each group has, of the dtype of `norm`, ``(groups,)``."""
        self._size = value = _given(self._size, "size")
        return value

    @property
    def lr(self) -> Rate:
        """The optimizer's learning rate: a number, or ``(…, groups)`` where groups differ.

        Known under `gclip.attach` and with ``Clipper(…, optimizer=…)``, else `UsageError`.
        """
        self._lr = value = _hyper(self._lr, "learning rate")
        return value

    @property
    def weight_decay(self) -> Rate:
        """The optimizer's weight decay, 0 where it has none; known where `lr` is."""
        self._weight_decay = value = _hyper(self._weight_decay, "weight decay")
        return value

    @property
    def global_norm(self) -> Tensor:
        """The L2 norm over all groups, of the dtype of `norm`, ``(…, 1)``."""
        # Relative to the largest: its square may be more than the dtype holds.
        top = self.norm.amax(dim=-1, keepdim=True)
        safe = torch.where((top > 0) & torch.isfinite(top), top, 1.0)
        norm: Tensor = torch.linalg.vector_norm(self.norm / safe, dim=-1, keepdim=True)
        return safe * norm


def _given(value: Tensor | Callable[[], Tensor] | None, name: str) -> Tensor:
    if value is None:
        raise UsageError(f"{name} was read, but this call to the strategy did not provide it")
    return value() if callable(value) else value


def _hyper(value: Rate | Callable[[], Rate] | None, name: str) -> Rate:
    if value is None:
        raise UsageError(
            f"the strategy needs the optimizer's {name}: use gclip.attach(optimizer, …), or "
            "Clipper(model, …, optimizer=optimizer)"
        )
    return value() if callable(value) else value


@dataclass(frozen=True, kw_only=True)
class Strategy(ABC):
    """Base class of all strategies: subclass it, decorate with ``@register(name)``, write `limit`.

    Five settings are shared by all. `scope` says which gradients share one norm; `rule` what
    happens to a group beyond its limit::

        scale      multiply by limit/norm: exactly the limit is left
        clamp      cut each element at ±limit; the norm measured is the largest element
        normalize  always multiply by limit/norm, also below the limit
        soft       always multiply by limit/(limit + norm), which never exceeds the limit
        skip       leave the whole step out: every gradient becomes zero, and the report says
                   ``skipped``; of single examples, leave the example out

    `side` says what is measured and clipped: the ``gradient`` before the optimizer sees it, the
    ``update`` that the optimizer has made of it (parameters after the step less those before), or
    each training example's gradient before they are averaged (``sample``). `warmup` is how many
    steps pass before the limit binds; memory learns from the first. `floor` is the smallest factor
    that any gradient is multiplied by.

    Override a default by redeclaring the field (``scope: Scope = "unit"``); restrict the choices
    through `scopes`, `rules` and `sides`. A tunable field may follow a `Schedule`.

    Attributes:
        family: what ``gclip list`` groups it under.
        own_warmup: True where the method says itself what happens during its `warmup`.
        excused: promises of the contract (`gclip.testing`) that the method cannot keep, and why.
    """

    name: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[str] = "other"
    scopes: ClassVar[tuple[str, ...]] = ("global", "layer", "tensor", "unit")
    rules: ClassVar[tuple[str, ...]] = RULES
    sides: ClassVar[tuple[str, ...]] = ("gradient", "update")
    own_warmup: ClassVar[bool] = False
    excused: ClassVar[Mapping[str, str]] = {}

    scope: Scope = setting("global", doc="which gradients share one norm")  # noqa: RUF009
    rule: RuleName = setting("scale", doc="what happens beyond the limit")  # noqa: RUF009
    side: Side = setting("gradient", doc="what is measured and clipped")  # noqa: RUF009
    warmup: int = setting(0, at_least=0, doc="steps before the limit binds")
    floor: float = setting(0.0, at_least=0.0, at_most=1.0, doc="smallest factor that clipping uses")

    def __post_init__(self) -> None:
        """Validate every field; `UsageError` names the value, the rule and the choices."""
        owner = self.name or type(self).__name__
        for f in fields(self):
            value = check(owner, type(self), f.name, getattr(self, f.name))
            object.__setattr__(self, f.name, value)
        for what, choices in (("scope", self.scopes), ("rule", self.rules), ("side", self.sides)):
            value = getattr(self, what)
            if value not in choices:
                raise UsageError(
                    f"{owner}: {what} {value!r} makes no sense here"
                    f"{suggestion(value, choices)} (choices: {', '.join(choices)})"
                )
        if self.scope == "element" and self.rule in ("normalize", "soft"):
            raise UsageError(
                f"{owner}: rule {self.rule!r} makes no sense with scope 'element', which cuts "
                "elements at the limit (choices: scale, clamp, skip)"
            )
        clamps = self.scope == "element" or self.rule in ("clamp", "skip", "transform")
        if self.floor and clamps:
            raise UsageError(
                f"{owner}: floor={self.floor:g} makes no sense with scope {self.scope!r} and rule "
                f"{self.rule!r}, which do not multiply by one factor; leave it at 0"
            )
        if self.side == "sample" and (
            self.scope == "element" or self.rule in ("clamp", "transform")
        ):
            raise UsageError(
                f"{owner}: the side 'sample' scales examples and cannot change single elements"
            )
        for ends in ends_of(self):
            ends.validate()

    def validate(self) -> None:  # noqa: B027 - most have nothing to check
        """Override to check what fields must be to one another; raise `UsageError`.

        Called when created, with numbers in every field; with a schedule, for both its ends.
        """

    @property
    def varying(self) -> frozenset[str]:
        """The names of the fields that follow a schedule."""
        return varying(self)

    @property
    def order(self) -> float:
        """Which p-norm the clipper measures (2 unless a strategy says otherwise)."""
        return 2.0

    @abstractmethod
    def limit(self, seen: Seen, memory: Memory) -> Limit:
        """The largest norm each group may have: a number, or a tensor that broadcasts to
        ``(…, groups)``; a `Band` to bound norms from below too. `memory` is only read here."""

    def remember(self, like: Tensor) -> Memory:
        """The memory before the first step, from zeros `like` ``(…, groups)``.

        `like` has the dtype of the norms, float32 or float64. Where that changes (a model made
        ``.double()`` in mid-training), the memory's tensors of that dtype change with it.
        """
        return {}

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        """The entries of `memory` that this step changes, as new tensors.

        Called after clipping, with each group's norm before (``seen.norm``) and after
        (`clipped_norm`). Groups whose gradient is missing or not finite keep their old entries.
        On the side ``sample`` once a step, with all its examples: norms are ``(examples, groups)``,
        entries ``(groups,)``, and `Seen.example_mean` leads from one to the other.
        """
        return {}

    def __str__(self) -> str:
        """The spelling that `gclip.parse` reads back: the name and every field not at default."""
        from gclip.core.spelling import spell

        return spell(self)


class Elements:
    """What a `Transform` may look at in one step: one tensor, its elements in the last dimension.

    Attributes:
        values: the gradient (or the update, on that side), ``(…, elements)``, or
            ``(…, rows, columns)`` where the class's `view` is ``matrix``. float32 at least. Of
            complex elements the moduli, whose phases are kept; a matrix of them is complex.
        step: how many steps this clipper has made before this one.
    """

    def __init__(
        self,
        values: Tensor,
        *,
        step: int = 0,
        weight: Tensor | Callable[[], Tensor] | None = None,
        grad: Tensor | Callable[[], Tensor] | None = None,
        lr: Rate | Callable[[], Rate] | None = None,
    ) -> None:
        self.values, self.step = values, step
        self._weight, self._grad, self._lr = weight, grad, lr

    @property
    def weight(self) -> Tensor:
        """The parameter (before the optimizer's step), of the same shape as `values`."""
        self._weight = value = _given(self._weight, "weight")
        return value

    @property
    def grad(self) -> Tensor:
        """The gradient, of the same shape as `values`; on the gradient side they are the same."""
        self._grad = value = self.values if self._grad is None else _given(self._grad, "grad")
        return value

    @property
    def lr(self) -> Rate:
        """The optimizer's learning rate for this tensor."""
        self._lr = value = _hyper(self._lr, "learning rate")
        return value


@dataclass(frozen=True, kw_only=True)
class Transform(Strategy):
    """Base class of methods that need the elements themselves: write `transform`.

    A pure function of one tensor, called for each parameter that has a gradient. Whatever
    dimensions stand before the last (before the last two, for matrices) count runs trained side
    by side: reduce over ``dim=-1``, with ``keepdim=True``.

    Attributes:
        view: ``flat`` to see each tensor as ``(…, elements)``; ``matrix`` to see it as
            ``(…, rows, columns)``, a convolution's weights by output channel; tensors with fewer
            than two dimensions are then left alone.
    """

    scopes: ClassVar[tuple[str, ...]] = ("tensor",)
    rules: ClassVar[tuple[str, ...]] = ("transform",)
    view: ClassVar[Literal["flat", "matrix"]] = "flat"

    scope: Scope = "tensor"
    rule: RuleName = "transform"

    @abstractmethod
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        """The new values, shaped as ``seen.values``, and the entries of `memory` that change.

        An element that stays as it is must keep its bits. Zero stays zero. Never write to the
        tensors given. Steps whose gradients are not finite never reach memory.
        """

    def remember(self, like: Tensor) -> Memory:
        """The memory before the first step, from zeros `like` ``seen.values``."""
        return {}

    def limit(self, seen: Seen, memory: Memory) -> float:
        """Not asked: a transform has no limit of its own."""
        return math.inf


def is_strategy_class(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Strategy) and is_dataclass(cls)


def remembers(strategy: Strategy) -> bool:
    """Whether it keeps anything between steps."""
    kept = type(strategy).remember
    return kept is not Strategy.remember and kept is not Transform.remember
