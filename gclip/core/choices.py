"""What a strategy's scope, rule and side may be."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Scope: TypeAlias = Literal["global", "layer", "tensor", "unit", "element"]
RuleName: TypeAlias = Literal["scale", "clamp", "normalize", "soft", "skip", "transform"]
Side: TypeAlias = Literal["gradient", "update", "sample"]
SCOPES: tuple[str, ...] = get_args(Scope)
SIDES: tuple[str, ...] = get_args(Side)
RULES: tuple[str, ...] = ("scale", "clamp", "normalize", "soft", "skip")
