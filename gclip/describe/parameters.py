"""The fields of a registered class, and everything that may stand in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gclip.core.fields import FieldInfo, Rule

T = TypeVar("T")

_SHARED_DOCS = {
    "scope": "which gradients share one norm",
    "rule": "what happens beyond the limit",
    "side": "what is measured and clipped",
}
FAMILIES = (
    "fixed limit",
    "past norms",
    "relative to weights",
    "skips steps",
    "changes elements",
    "per example",
)
"""The families in the order of the list; others follow by name."""
_BOUNDS = (("above", "above"), ("at_least", "≥"), ("below", "below"), ("at_most", "≤"))


@dataclass(frozen=True)
class Parameter:
    """A field of a strategy and everything that may stand in it."""

    info: FieldInfo
    rule: Rule
    shared: bool
    choices: tuple[Any, ...] | None

    @property
    def doc(self) -> str:
        """What the field is."""
        return self.info.doc or _SHARED_DOCS.get(self.info.name, "")

    @property
    def range(self) -> str:
        """What studies search: ``0.001 … 1, log``, or the choices; empty where they search none."""
        return range_of(self.as_dict())

    @property
    def allowed(self) -> str:
        """What a user may set: ``above 0``, ``≥ 0 and below 1``."""
        return allowed_of(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        info, rule = self.info, self.rule
        return {
            "name": info.name,
            "default": info.default,
            "kind": info.kind,
            "low": info.low,
            "high": info.high,
            "log": info.log,
            "choices": list(self.choices) if self.choices else None,
            **{name: getattr(rule, name) for name, _ in _BOUNDS},
            "shared": self.shared,
            "doc": self.doc,
        }


def range_of(parameter: Mapping[str, Any]) -> str:
    """`Parameter.range` of one as plain values."""
    if parameter["choices"]:
        return " | ".join(format_value(each) for each in parameter["choices"])
    low, high = parameter["low"], parameter["high"]
    if low is None or high is None:
        return ""
    return f"{format_value(low)} … {format_value(high)}" + (", log" if parameter["log"] else "")


def allowed_of(parameter: Mapping[str, Any]) -> str:
    """`Parameter.allowed` of one as plain values."""
    bounds = ((words, parameter[name]) for name, words in _BOUNDS)
    return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)


def format_value(value: Any) -> str:
    """A field's value as it is written in a spelling."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def value_text(value: Any, default: Any) -> str:
    """A field's value, and the default where it is another."""
    text = format_value(value)
    return text if value == default else f"{text}\n(not {format_value(default)})"


def number(value: float) -> str:
    """Four digits: what an example shows."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.4g}"


def in_families(things: Iterable[T], family_of: Callable[[T], str]) -> dict[str, list[T]]:
    """Descriptions by family, in the order of `FAMILIES`."""
    grouped: dict[str, list[T]] = {}
    for each in things:
        grouped.setdefault(family_of(each), []).append(each)
    order = {family: index for index, family in enumerate(FAMILIES)}
    return dict(sorted(grouped.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))
