"""What a contract is: promises with a name and a sentence, each looked at by itself.

A promise is a function of a subject that yields one sentence for each thing it finds broken, with
the numbers; one that yields nothing is kept. Where it makes no sense it raises `DoesNotApply`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from gclip.core.source_location import last_place, told
from gclip.errors import UsageError, unknown
from gclip.testing.applicability import DoesNotApply
from gclip.testing.promises import Result

MOST = 3
"""How many breaches of one promise are told; the first usually says it all."""

S = TypeVar("S")
_OWN = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class Promise(Generic[S]):
    """One promise: its name, what it says in words, and the function that looks for a breach."""

    name: str
    sentence: str
    check: Callable[[S], Iterator[str]]


class Contract(Generic[S]):
    """The promises of one kind of thing.

    Args:
        themes: the modules that make them, in the order in which they are checked.
    """

    def __init__(self, *themes: str) -> None:
        self._themes = themes
        self._promises: dict[str, Promise[S]] = {}

    def promise(
        self, sentence: str
    ) -> Callable[[Callable[[S], Iterator[str]]], Callable[[S], Iterator[str]]]:
        """Add the decorated function to the contract, under its own name."""

        def add(check: Callable[[S], Iterator[str]]) -> Callable[[S], Iterator[str]]:
            name = check.__name__
            self._promises[name] = Promise(name, sentence, check)
            return check

        return add

    def promises(self) -> tuple[Promise[S], ...]:
        """Every promise, in the order in which they are checked."""
        for theme in self._themes:
            importlib.import_module(f"gclip.training.contract.{theme}")
        return tuple(self._promises.values())

    def examine(
        self, subject: S, only: Iterable[str] | None, excused: Mapping[str, str]
    ) -> list[Result]:
        """One result a promise.

        Args:
            only: names of promises, where not all are to be checked.
            excused: promises that the subject says it cannot keep, and why.

        Raises:
            UsageError: `only` names no promise.
        """
        every = self.promises()
        names = [each.name for each in every]
        wanted = names if only is None else [only] if isinstance(only, str) else list(only)
        for name in wanted:
            if name not in names:
                unknown("promise", name, names)
        for name in excused:
            if name not in names:
                unknown("promise that is excused", name, names)
        return [_examine(e, subject, excused.get(e.name)) for e in every if e.name in wanted]


def _examine(promise: Promise[Any], subject: Any, excuse: str | None) -> Result:
    if excuse is not None:
        return Result(promise.name, promise.sentence, "does not apply", (excuse,))
    messages: list[str] = []
    try:
        messages.extend(islice(promise.check(subject), MOST))
    except DoesNotApply as reason:
        return Result(promise.name, promise.sentence, "does not apply", (str(reason),))
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever is raised is a breach, and the next is checked
        messages.append(_raised(error))
    return Result(promise.name, promise.sentence, "broken" if messages else "ok", tuple(messages))


def _raised(error: BaseException) -> str:
    if isinstance(error, UsageError):  # it says where
        return str(error)
    place = last_place(error, outside=_OWN)
    return f"raised {told(error)}" + (f" ({place})" if place else "")
