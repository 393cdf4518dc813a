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
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from torch import Tensor

from gclip.core.choices import RULES as RULES
from gclip.core.choices import SCOPES as SCOPES
from gclip.core.choices import SIDES as SIDES
from gclip.core.choices import RuleName as RuleName
from gclip.core.choices import Scope as Scope
from gclip.core.choices import Side as Side
from gclip.core.fields import check, setting
from gclip.core.schedules import ends_of, varying
from gclip.core.seen import Elements, Limit, Seen
from gclip.core.spelling import spell
from gclip.errors import UsageError, suggestion

DOCUMENTATION = ("equation", "paper")
"""Class attributes that say what a strategy is and change nothing that it computes."""

Memory: TypeAlias = Mapping[str, Any]
"""What a strategy keeps between steps: tensors, or a nested dict owned by a helper."""


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

    >>> from dataclasses import dataclass
    >>> import gclip
    >>> @dataclass(frozen=True, kw_only=True)
    ... class BesideWeights(gclip.Strategy):
    ...     ratio: float = gclip.tunable(0.5, low=0.01, high=1.0, log=True)
    ...
    ...     def limit(self, seen, memory):
    ...         return self.ratio * seen.weight_norm
    >>> limits, clipped = gclip.simulate(BesideWeights(), [1.0, 3.0], weight_norm=4.0)
    >>> clipped.flatten().tolist()
    [1.0, 2.0]

    Override a default by redeclaring the field (``scope: Scope = "unit"``); restrict the choices
    through `scopes`, `rules` and `sides`. A tunable field may follow a `Schedule`.

    Attributes:
        equation: what it does, on one line: ``g ← g · min(1, c/‖g‖)``.
        paper: where it comes from: ``Brock et al. 2021, arXiv:2102.06171``.
        family: what ``gclip list`` groups it under.
        own_warmup: True where the method says itself what happens during its `warmup`.
        excused: promises of the contract (`gclip.testing`) that the method cannot keep, and why.
    """

    name: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    equation: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    family: ClassVar[str] = "other"
    scopes: ClassVar[tuple[str, ...]] = ("global", "layer", "tensor", "unit")
    rules: ClassVar[tuple[str, ...]] = RULES
    sides: ClassVar[tuple[str, ...]] = ("gradient", "update")
    own_warmup: ClassVar[bool] = False
    excused: ClassVar[Mapping[str, str]] = {}

    scope: Scope = setting("global", shared=True, doc="which gradients share one norm")  # noqa: RUF009
    rule: RuleName = setting("scale", shared=True, doc="what happens beyond the limit")  # noqa: RUF009
    side: Side = setting("gradient", shared=True, doc="what is measured and clipped")  # noqa: RUF009
    warmup: int = setting(0, shared=True, at_least=0, doc="steps before the limit binds")
    floor: float = setting(
        0.0, shared=True, at_least=0.0, at_most=1.0, doc="smallest factor that clipping uses"
    )

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
        scales = not self.clamps and self.rule not in ("skip", "transform")
        if self.floor and not scales:
            raise UsageError(
                f"{owner}: floor={self.floor:g} makes no sense with scope {self.scope!r} and rule "
                f"{self.rule!r}, which do not multiply by one factor; leave it at 0"
            )
        if self.side == "sample" and (self.clamps or self.rule == "transform"):
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

    @property
    def clamps(self) -> bool:
        """Whether elements are cut at the limit, so that the norm measured is the largest."""
        return self.rule == "clamp" or (self.scope == "element" and self.rule != "transform")

    @property
    def first_limited_step(self) -> int:
        """The step from which the limit binds: where the method has no `own_warmup`, `warmup`."""
        return 0 if self.own_warmup else self.warmup

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
        return spell(self.name, self)


@dataclass(frozen=True, kw_only=True)
class Transform(Strategy):
    """Base class of methods that need the elements themselves: write `transform`.

    A pure function of one tensor, called for each parameter that has a gradient. Whatever
    dimensions stand before the last (before the last two, for matrices) count runs trained side
    by side: reduce over ``dim=-1``, with ``keepdim=True``.

    >>> from dataclasses import dataclass
    >>> import torch, gclip
    >>> @dataclass(frozen=True, kw_only=True)
    ... class WithoutNegative(gclip.Transform):
    ...     def transform(self, seen, memory):
    ...         return seen.values.clamp(min=0), {}
    >>> weight = torch.nn.Parameter(torch.zeros(3))
    >>> weight.grad = torch.tensor([-1.0, 2.0, -3.0])
    >>> report = gclip.Clipper([weight], WithoutNegative()).step()
    >>> weight.grad.tolist()
    [0.0, 2.0, 0.0]

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


@dataclass(frozen=True)
class Chain:
    """Strategies applied in order, each to what the one before it left."""

    strategies: tuple[Strategy, ...]

    def __str__(self) -> str:
        return f"chain({', '.join(map(str, self.strategies))})"


def is_strategy_class(cls: Any) -> bool:
    """Whether it is a dataclass that derives from `Strategy`."""
    return isinstance(cls, type) and issubclass(cls, Strategy) and is_dataclass(cls)


def measured_order(strategy: Strategy) -> float:
    """Which p-norm of a group its limit is held against; of a clamp, the largest element."""
    return math.inf if strategy.clamps else strategy.order


def remembers(strategy: Strategy) -> bool:
    """Whether it keeps anything between steps."""
    method = type(strategy).remember
    return method is not Strategy.remember and method is not Transform.remember
