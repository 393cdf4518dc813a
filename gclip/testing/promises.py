"""What a promise is, and the list of all of them.

A promise is a function of a `Subject` that yields one sentence for each thing it finds broken,
with the numbers; one that yields nothing is kept::

    @promise("a gradient of zero stays zero")
    def zero(subject: Subject) -> Iterator[str]:
        ...
        yield f"step {step}: the norm is {norm:g}, not 0"

Where it makes no sense for a strategy it raises `DoesNotApply` with the reason.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from gclip.testing.subject import Subject

Check: TypeAlias = Callable[["Subject"], Iterator[str]]
State: TypeAlias = Literal["ok", "broken", "does not apply"]

_THEMES = (
    "fields", "values", "hard_gradients", "kinds", "storage", "memory", "states", "devices",
    "steps",
)  # fmt: skip
_promises: dict[str, Promise] = {}


@dataclass(frozen=True)
class Promise:
    """One promise: its name, what it says in words, and the function that looks for a breach."""

    name: str
    sentence: str
    check: Check


@dataclass(frozen=True)
class Result:
    """What became of one promise.

    Attributes:
        promise: its name.
        sentence: what it says.
        said: one sentence for each breach, or the reason why it does not apply.
    """

    promise: str
    sentence: str
    state: State
    said: tuple[str, ...] = ()


def promise(sentence: str) -> Callable[[Check], Check]:
    """Add the decorated function to the contract, under its own name."""

    def add(check: Check) -> Check:
        name = check.__name__
        _promises[name] = Promise(name, sentence, check)
        return check

    return add


def promises() -> tuple[Promise, ...]:
    """Every promise, in the order in which they are checked."""
    for theme in _THEMES:
        importlib.import_module(f"gclip.testing.{theme}")
    return tuple(_promises.values())
