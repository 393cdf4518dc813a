"""One strategy's description: its family, where it works, its parameters, memory and paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gclip.core.fields import Rule, fields_of
from gclip.core.strategy import RULES, SCOPES, SIDES, Strategy
from gclip.describe.documented import Documented
from gclip.describe.memory import Footprint, footprint
from gclip.describe.parameters import FAMILIES as FAMILIES
from gclip.describe.parameters import Parameter, in_families

SIDE_WORDS = {"gradient": "gradient", "update": "update", "sample": "per example"}

_ARXIV = ", arXiv:"


@dataclass(frozen=True)
class Description(Documented):
    """What there is to say about a strategy class. Memory is measured when first asked for."""

    cls: type[Strategy]

    @cached_property
    def defaults(self) -> Strategy:
        """The strategy with nothing set."""
        return self.cls()

    @property
    def name(self) -> str:
        """What it is registered under."""
        return self.cls.name

    @property
    def family(self) -> str:
        """What it is listed among."""
        return self.cls.family

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that it works on, its default first."""
        return _first(self.defaults.side, self.cls.sides, SIDES)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that it may have, its default first."""
        return _first(self.defaults.scope, self.cls.scopes, SCOPES)

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that it may have, its default first."""
        return _first(self.defaults.rule, self.cls.rules, RULES)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its own fields first, those that all strategies share last."""
        declared = {f.name: f.metadata for f in dataclasses.fields(self.cls)}
        allowed = {"scope": self.scopes, "rule": self.rules, "side": self.sides}
        return tuple(
            Parameter(
                info,
                # How `tunable` and `setting` keep their rule; a bare field has none.
                declared[info.name].get("gclip", Rule(kind="setting")),
                info.shared,
                info.choices or allowed.get(info.name),
            )
            for info in fields_of(self.cls)
        )

    @property
    def own(self) -> tuple[Parameter, ...]:
        """The fields that are not shared by all, and those shared ones that studies search."""
        return tuple(p for p in self.parameters if not p.shared or p.info.kind == "tunable")

    @property
    def equation(self) -> str:
        """What it does, on one line."""
        return self.cls.equation

    @property
    def reference(self) -> str:
        """The paper without its number: ``Brock et al. 2021``."""
        return self.cls.paper.partition(_ARXIV)[0]

    @property
    def arxiv(self) -> str | None:
        """The paper's number on arXiv, ``2102.06171``; None where it has none."""
        return self.cls.paper.partition(_ARXIV)[2] or None

    @cached_property
    def memory(self) -> Footprint:
        """What it keeps between steps."""
        return footprint(self.defaults)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        memory = self.memory
        return {
            "name": self.name,
            "aliases": list(self.cls.aliases),
            "family": self.family,
            "summary": self.summary,
            "equation": self.equation,
            "scope": self.defaults.scope,
            "scopes": list(self.scopes),
            "rule": self.defaults.rule,
            "rules": list(self.rules),
            "side": self.defaults.side,
            "sides": list(self.sides),
            "parameters": [p.as_dict() for p in self.parameters],
            "memory": {
                "words": memory.words,
                "grows": memory.grows,
                "numbers_on_lenet": memory.on_lenet,
                "numbers_a_parameter_on_lenet": memory.per_parameter,
            },
            "paper": self.cls.paper,
            "reference": self.reference or None,
            "arxiv": self.arxiv,
        }


def describe(cls: type[Strategy]) -> Description:
    """What there is to say about the strategy class `cls`."""
    return Description(cls)


def families(descriptions: Iterable[Description]) -> dict[str, list[Description]]:
    """The descriptions by family, in the order of `FAMILIES`."""
    return in_families(descriptions, lambda each: each.family)


def _first(default: str, allowed: Iterable[str], order: tuple[str, ...]) -> tuple[str, ...]:
    rest = sorted(set(allowed) - {default}, key=lambda each: (*order, each).index(each))
    return (default, *rest)
