"""Questions about clipping, one a file, answered by experiment with Optuna.

A file here is a study: the first line of its docstring is its question, and ``run`` answers it.
A new file is found by its name, without being listed anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from gclip.core.source_location import place_of
from gclip.errors import UsageError, choose
from gclip.tuning.study import Answer, Request


def names() -> tuple[str, ...]:
    """The names of the studies, sorted."""
    return tuple(
        sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    )


def get(name: str) -> ModuleType:
    """The study called `name`; `UsageError` with a suggestion if there is none."""
    return importlib.import_module(f"{__name__}.{choose(name, names(), 'study')}")


def answered(study: ModuleType, request: Request) -> Answer:
    """What `study` answers; `UsageError` where that is no `Answer`, with the file that gave it."""
    answer = study.run(request)
    if not isinstance(answer, Answer):
        name = study.__name__.rpartition(".")[2]
        raise UsageError(
            f"the study {name} must return a gclip.tuning.study.Answer from run(), but returned "
            f"{'None' if answer is None else type(answer).__name__} ({place_of(study.run)})"
        )
    return answer


def uses(name: str) -> tuple[str, ...]:
    """The fields of a request that the study reads, beside those that all do."""
    found: tuple[str, ...] = get(name).USES
    return found


def question(name: str) -> str:
    """What the study asks, in one line."""
    return (get(name).__doc__ or "").strip().splitlines()[0]
