"""What a contract is: promises with a name and a sentence, each looked at by itself.

A promise is a function of a subject that yields one sentence for each thing it finds broken, with
the numbers; one that yields nothing is kept. Where it makes no sense it raises `DoesNotApply`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Literal, TypeAlias, TypeVar

from gclip.errors import unknown
from gclip.testing.applicability import DoesNotApply

S = TypeVar("S")
State: TypeAlias = Literal["ok", "broken", "does not apply"]

MOST = 3
"""How many breaches of one promise are told; the first usually says it all."""


@dataclass(frozen=True)
class Promise(Generic[S]):
    """One promise: its name, what it says in words, and the function that looks for a breach."""

    name: str
    sentence: str
    check: Callable[[S], Iterator[str]]

    def examine(self, subject: S, raised: Callable[[BaseException], str]) -> Result:
        """What becomes of it; whatever `subject` raises is a breach, in the words of `raised`."""
        messages: list[str] = []
        try:
            messages.extend(islice(self.check(subject), MOST))
        except DoesNotApply as reason:
            return self.excused(str(reason))
        except (Exception, SystemExit) as error:
            messages.append(raised(error))
        state: State = "broken" if messages else "ok"
        return Result(self.name, self.sentence, state, tuple(messages))

    def excused(self, reason: str) -> Result:
        """It does not apply, and why."""
        return Result(self.name, self.sentence, "does not apply", (reason,))


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


class Contract(Generic[S]):
    """The promises of one kind of thing.

    Args:
        package: where the modules are that make them.
        themes: those modules, in the order in which they are checked.
    """

    def __init__(self, package: str, *themes: str) -> None:
        self._package, self._themes = package, themes
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
            importlib.import_module(f"{self._package}.{theme}")
        return tuple(self._promises.values())

    def selected(self, only: Iterable[str] | None) -> tuple[Promise[S], ...]:
        """The promises that are to be checked: all, or those that `only` names.

        Raises:
            UsageError: `only` names no promise.
        """
        every = self.promises()
        names = [each.name for each in every]
        wanted = names if only is None else [only] if isinstance(only, str) else list(only)
        for name in wanted:
            if name not in names:
                unknown("promise", name, names)
        return tuple(each for each in every if each.name in wanted)
