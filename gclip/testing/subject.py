"""The strategy class under test, and the settings it is tried with."""

from __future__ import annotations

import math
import random
from typing import Any

from gclip.core.fields import FieldInfo, fields_of
from gclip.core.strategy import Strategy, Transform
from gclip.errors import UsageError
from gclip.testing.applicability import DoesNotApply
from gclip.testing.rigs import Rig
from gclip.testing.sides import make

APART = ("tensor", "layer", "unit", "element")
"""Scopes under which tensors of different layers never share a norm."""
DEFAULT_COMPILER = "inductor"
"""What ``torch.compile`` uses by itself."""


class Subject:
    """One strategy class, and what a promise needs to try it out.

    Attributes:
        cls: the class.
        seed: of everything drawn at random.
        compiler: the backend of ``torch.compile`` that whole steps are compiled by.
    """

    def __init__(
        self, cls: type[Strategy], seed: int = 0, compiler: str = DEFAULT_COMPILER
    ) -> None:
        self.cls, self.seed, self.compiler = cls, seed, compiler

    def excuse(self, promise: str) -> str | None:
        """Why the class says that it cannot keep a promise: ``excused = {"no_waiting": "…"}``."""
        excuses: dict[str, str] = getattr(self.cls, "excused", {})
        return excuses.get(promise)

    @property
    def is_transform(self) -> bool:
        return issubclass(self.cls, Transform)

    @property
    def sides(self) -> list[str]:
        """The sides that gradients can be handed to, the strategy's own first."""
        own = self.cls().side
        others = [each for each in self.cls.sides if each not in (own, "sample")]
        return [own, *(each for each in others if self.try_create(side=each) is not None)]

    @property
    def remembers(self) -> bool:
        """Whether the strategy keeps anything between steps."""
        return self.is_transform or self.cls.learn is not Strategy.learn

    def rig(self, strategy: Strategy | None = None, **options: Any) -> Rig:
        """Parameters and a clipper for the strategy, on the side that it works on."""
        return make(self.cls() if strategy is None else strategy, seed=self.seed, **options)

    def create(self, **settings: Any) -> Strategy:
        """The strategy with these settings."""
        return self.cls(**settings)

    def try_create(self, **settings: Any) -> Strategy | None:
        """The strategy with these settings, or None where it refuses them."""
        try:
            return self.create(**settings)
        except UsageError:
            return None

    def apart(self) -> dict[str, Any]:
        """Settings under which tensors do not share norms; `DoesNotApply` where there are none."""
        for scope in APART:
            if scope in self.cls.scopes and self.try_create(scope=scope) is not None:
                return {"scope": scope}
        raise DoesNotApply("all its scopes let tensors share one norm")

    def apart_if_any(self) -> list[dict[str, Any]]:
        """The settings of `apart`, or none."""
        try:
            return [self.apart()]
        except DoesNotApply:
            return []

    def plain(self, *rules: str) -> dict[str, Any]:
        """Settings with the first of `rules` there is, and no floor; `DoesNotApply` without."""
        for rule in rules:
            settings = {"rule": rule, "floor": 0.0}
            if rule in self.cls.rules and self.try_create(**settings) is not None:
                return settings
        raise DoesNotApply(f"none of its rules is {' or '.join(rules)}")

    @property
    def short(self) -> dict[str, Any]:
        """The shortest warm-up that the class allows, so that its limit binds soon."""
        for warmup in (0, 1, 2):
            if self.try_create(warmup=warmup) is not None:
                return {"warmup": warmup}
        return {}

    @property
    def tunables(self) -> list[FieldInfo]:
        return [info for info in fields_of(self.cls) if info.kind == "tunable"]

    @property
    def ranges(self) -> list[FieldInfo]:
        """The tunable numbers, the main one first: the first on a log scale, else the first."""
        numbers = [info for info in self.tunables if info.low is not None]
        return sorted(numbers, key=lambda info: not info.log)

    def sweep(self, count: int) -> list[dict[str, Any]]:
        """Settings over the whole range of the main tunable; the defaults where there is none."""
        if not self.ranges:
            return [{}]
        main = self.ranges[0]
        return [{main.name: between(main, index / (count - 1))} for index in range(count)]

    def random_settings(self, count: int) -> list[dict[str, Any]]:
        """`count` random settings from the fields' search ranges and choices."""
        rng = random.Random(self.seed)
        return [self._draw(rng) for _ in range(count)]

    def _draw(self, rng: random.Random) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for info in fields_of(self.cls):
            if info.shared and info.kind != "tunable":
                continue
            if info.choices is not None:
                settings[info.name] = rng.choice(info.choices)
            elif info.kind == "tunable":
                settings[info.name] = between(info, rng.random())
            elif info.type is bool:
                settings[info.name] = rng.random() < 0.5
        settings["scope"] = rng.choice(self.cls.scopes)
        settings["rule"] = rng.choice(self.cls.rules)
        settings["side"] = rng.choice(self.cls.sides)
        return settings


def between(info: FieldInfo, fraction: float) -> Any:
    """The value at `fraction`, 0 to 1, of a field's search range."""
    low, high = info.low or 0.0, info.high or 0.0
    if info.log:
        value = math.exp(math.log(low) + fraction * (math.log(high) - math.log(low)))
    else:
        value = low + fraction * (high - low)
    value = min(max(float(f"{value:.6g}"), low), high)  # short, for the sentences
    return round(value) if whole(info) else value


def shown(strategy: Strategy) -> str:
    """The spelling, with the class's name for one that is registered under none."""
    return f"{'' if strategy.name else type(strategy).__name__}{strategy}"


def whole(info: FieldInfo) -> bool:
    """Whether a field takes whole numbers only."""
    if isinstance(info.default, bool):
        return False
    return info.type is int or isinstance(info.default, int)
