"""The fields of a registered class, and everything that may stand in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gclip.core.fields import FieldInfo, Rule

_SHARED_DOCS = {
    "scope": "which gradients share one norm",
    "rule": "what happens beyond the limit",
    "side": "what is measured and clipped",
}
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
        info = self.info
        if self.choices:
            return " | ".join(format_value(each) for each in self.choices)
        if info.low is None or info.high is None:
            return ""
        return f"{format_value(info.low)} … {format_value(info.high)}" + (
            ", log" if info.log else ""
        )

    @property
    def allowed(self) -> str:
        """What a user may set: ``above 0``, ``≥ 0 and below 1``."""
        bounds = ((words, getattr(self.rule, name)) for name, words in _BOUNDS)
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)

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


def format_value(value: Any) -> str:
    """A field's value as it is written in a spelling."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
