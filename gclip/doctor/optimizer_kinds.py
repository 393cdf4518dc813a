"""What an optimizer makes of the size of its gradients, told by the name of its class."""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["plain", "adaptive", "sign", "normalised"]
"""``plain``: its steps grow with the gradients. ``adaptive``: it divides by a running size of the
gradients, element by element. ``sign``: only their signs count. ``normalised``: it gives each step,
or each tensor's, a size of its own."""

_PARTS: tuple[tuple[str, Kind], ...] = (
    ("lion", "sign"),
    ("sign", "sign"),
    ("muon", "normalised"),
    ("lars", "normalised"),
    ("lamb", "normalised"),
    ("normalized", "normalised"),
    ("shampoo", "adaptive"),
    ("soap", "adaptive"),
    ("adopt", "adaptive"),
    ("prodigy", "adaptive"),
    ("rmsprop", "adaptive"),
    ("ada", "adaptive"),
)


def kind_of(name: str) -> Kind:
    """The kind of an optimizer whose class has this name; ``plain`` where it tells nothing."""
    lowered = name.lower()
    return next((kind for part, kind in _PARTS if part in lowered), "plain")
