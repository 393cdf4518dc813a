"""The contracts of problems and models: promises that a subject may say it cannot keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from gclip.core.source_location import last_place, told
from gclip.errors import UsageError, unknown
from gclip.testing.promise import Contract as AnyContract
from gclip.testing.promise import Result

S = TypeVar("S")
_OWN = str(Path(__file__).parents[2])


class Contract(AnyContract[S]):
    """The promises of one kind of thing.

    Args:
        themes: the modules beside this one that make them, in the order in which they are checked.
    """

    def __init__(self, *themes: str) -> None:
        super().__init__("gclip.training.contract", *themes)

    def examine(
        self, subject: S, only: Iterable[str] | None, excused: Mapping[str, str]
    ) -> list[Result]:
        """One result a promise.

        Args:
            only: names of promises, where not all are to be checked.
            excused: promises that the subject says it cannot keep, and why.

        Raises:
            UsageError: `only` names no promise, or `excused` does.
        """
        chosen = self.selected(only)
        names = [each.name for each in self.promises()]
        for name in excused:
            if name not in names:
                unknown("promise that is excused", name, names)
        return [
            each.excused(excused[each.name])
            if each.name in excused
            else each.examine(subject, _raised)
            for each in chosen
        ]


def _raised(error: BaseException) -> str:
    if isinstance(error, UsageError):  # it says where
        return str(error)
    place = last_place(error, outside=_OWN)
    return f"raised {told(error)}" + (f" ({place})" if place else "")
