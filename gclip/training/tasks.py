"""Which problems are there, which one does a task's spelling mean, and where is its data?"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from gclip.core.digest import class_digest
from gclip.core.fields import field_names
from gclip.core.named_registry import NamedRegistry
from gclip.core.spelling import read
from gclip.errors import UsageError, suggestion, unknown
from gclip.training import cache
from gclip.training.metric import Metric
from gclip.training.problem import Problem, Source
from gclip.training.run_state import moved

if TYPE_CHECKING:
    from gclip.training.dataset import Dataset

P = TypeVar("P", bound=type[Problem])

_EXAMPLE = "adding(length=200)"
PROBLEMS: NamedRegistry[type[Problem]] = NamedRegistry(
    "problem", "gclip.problems", "gclip.problems"
)


def register_problem(name: str) -> Callable[[P], P]:
    """Class decorator: make a problem known under `name`, for ``--task`` and `gclip.compare`.

    Raises:
        UsageError: a name with bad characters or one that is taken, or a class that is not a
            frozen, keyword-only dataclass deriving from `gclip.Problem` with a metric, `players`,
            `batches`, `losses` and `evaluate`.
    """

    def decorate(cls: P) -> P:
        _check_class(cls, name)
        PROBLEMS.add(name, cls)
        cls.name = name
        problem_of.cache_clear()
        return cls

    if not isinstance(name, str):
        raise UsageError('write @register_problem("name") with the name in quotes and brackets')
    return decorate


@functools.lru_cache(maxsize=256)
def problem_of(task: str) -> Problem:
    """The problem that a task's spelling means: ``adding``, ``adding(length=200)``,
    ``torchvision:FashionMNIST``.

    Raises:
        UsageError: an unknown name or field, or a value that a field refuses.
    """
    name, colon, rest = task.partition(":") if isinstance(task, str) else (task, "", "")
    if colon and "(" not in name and PROBLEMS.has(name.strip()):
        cls = PROBLEMS.get(name.strip())
        return cls(**{field_names(cls)[0]: rest.strip()})
    call = read(task, what="task", example=_EXAMPLE)
    if not PROBLEMS.has(call.name):
        unknown("task", call.name, PROBLEMS.names())
    cls = PROBLEMS.get(call.name)
    known = field_names(cls)
    for key in call.named:
        if key not in known:
            choices = ", ".join(known) or "none"
            raise UsageError(
                f"{cls.name}: unknown field {key!r}{suggestion(key, known)} (choices: {choices})"
            )
    return cls(**call.named)


def problem_code(problem: Problem) -> str:
    """12 hex digits that change when the problem's code does, though not when its comments do;
    "" for the tasks whose code is the trainer's own."""
    return "" if problem.answers_for_itself else class_digest(type(problem))


@dataclass(frozen=True, kw_only=True, eq=False)
class ProblemData:
    """What `Problem.data` gave, with the names it goes by.

    Attributes:
        name: the task's spelling.
        value: the data itself.
        identity: what ``RunConfig.data`` holds.
    """

    name: str
    value: Any
    identity: str = ""

    def to(self, device: torch.device | str) -> ProblemData:
        """The same on another device."""
        there = moved(self.value, torch.device(device))
        return ProblemData(name=self.name, value=there, identity=self.identity)


def load_data(
    task: str, folder: str | Path | None = None, download: bool = True
) -> Dataset | ProblemData:
    """The data of a task, on the CPU: a `Dataset` where it is learned from by a fast path.

    Args:
        task: the spelling of a problem.
        folder: with the data, where the task needs one (``--data``).
        download: bring what can be downloaded and is not there.

    Raises:
        UsageError: in one sentence: an unknown task, no such folder, nothing usable in it, no
            network, or an error of a plugin's `data`.
    """
    from gclip.training.problem_errors import within
    from gclip.training.supervised import Supervised, as_dataset

    problem = problem_of(task)
    place = None if folder is None else cache.without_tilde(folder, "the data folder")
    with within(problem, "data"):
        value = problem.data(Source(folder=place, download=download))
    name = str(problem)
    if isinstance(problem, Supervised):
        return as_dataset(problem, value)
    with within(problem, "identity"):
        identity = problem.identity(value)
    if not isinstance(identity, str):
        raise UsageError(f"problem {problem.name}: identity must return text, not {identity!r}")
    return ProblemData(name=name, value=value, identity=identity[:16])


def metric_of_task(task: str) -> Metric:
    """The metric of a task; its worst value may still depend on the data."""
    return problem_of(task).metric


def _check_class(cls: Any, name: str) -> None:
    if not isinstance(cls, type) or not issubclass(cls, Problem):
        raise UsageError(
            f"@register_problem({name!r}) decorates a subclass of gclip.Problem, not {cls!r}"
        )
    params = cls.__dict__.get("__dataclass_params__")
    if not is_dataclass(cls) or params is None or not params.frozen:
        raise UsageError(
            f"{cls.__name__} must be a dataclass: write @dataclass(frozen=True, kw_only=True) "
            f"between @register_problem({name!r}) and the class"
        )
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise UsageError(f"{cls.__name__} must define {', '.join(missing)}()")
    metric = getattr(cls, "metric", None)
    if not isinstance(metric, Metric):
        raise UsageError(
            f"{cls.__name__} must have a metric, which says what a trained model is measured by: "
            'metric = gclip.Metric("mean squared error", better="lower", worst=1.0); '
            f"got {metric!r}"
        )
    _check_defaults(cls)
    try:
        cls()
    except UsageError:
        raise
    except TypeError as error:
        raise UsageError(f"every field of {cls.__name__} needs a default: {error}") from error


def _check_defaults(cls: type[Problem]) -> None:
    from gclip.training.config import RunConfig

    known = RunConfig.setting_names()
    for key in cls.defaults:
        if key not in known:
            raise UsageError(
                f"{cls.__name__}.defaults: unknown field of RunConfig {key!r}"
                f"{suggestion(key, known)} (choices: {', '.join(known)})"
            )
    for player, count in cls.updates.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UsageError(
                f"{cls.__name__}.updates: {player!r} must be a whole number ≥ 1, but got {count!r}"
            )
    if cls.metric.worst is None or math.isnan(cls.metric.worst):
        raise UsageError(f"{cls.__name__}.metric needs the worst value, which divergence scores")
