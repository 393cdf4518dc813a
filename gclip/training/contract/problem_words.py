"""Promises about what a problem says of itself: its docs and its spelling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gclip.core.fields import FieldInfo, fields_of
from gclip.errors import UsageError
from gclip.training.contract.problem_subject import CONTRACT, ProblemSubject
from gclip.training.tasks import problem_of


@CONTRACT.promise("the class says what is minimised, and every field what it is")
def documented(subject: ProblemSubject) -> Iterator[str]:
    """The docstring is not the one that a dataclass is given."""
    doc = (subject.cls.__doc__ or "").strip()
    if not doc or doc.startswith(f"{subject.cls.__name__}("):
        yield "it has no docstring, of which gclip list shows the first line"
    for info in fields_of(subject.cls):
        if not info.doc:
            yield f"{info.name} has no doc: gclip.setting({info.default!r}, doc='…')"


@CONTRACT.promise("its spelling is read back as the same problem, whatever its fields")
def spelled(subject: ProblemSubject) -> Iterator[str]:
    """Each field in turn at other values than its default."""
    cls = subject.cls
    tries: list[dict[str, Any]] = [{}]
    tries += [{info.name: value} for info in fields_of(cls) for value in _values(info)]
    for settings in tries:
        try:
            problem = cls(**settings)
        except UsageError:
            continue  # not a value of this field
        spelling = str(problem)
        try:
            back = problem_of(spelling)
        except UsageError as error:
            yield f"{spelling!r} cannot be read back: {error}"
            continue
        if back != problem:
            yield f"{problem!r} is spelled {spelling!r}, which is read as {back!r}"


def _values(info: FieldInfo) -> list[Any]:
    default = info.default
    if info.choices is not None:
        return list(info.choices)
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [default + 1, 2 * default + 3]
    if isinstance(default, float):
        return [default / 3, 0.1, default + 1, 1e-7]
    return ["other"] if isinstance(default, str) else []
