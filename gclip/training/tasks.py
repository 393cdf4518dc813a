"""Which problems are there, which one does a task's spelling mean, and where is its data?"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from gclip.core.fields import field_names
from gclip.core.registered_class import check_dataclass, check_defaults
from gclip.errors import UsageError, suggestion
from gclip.training import cache
from gclip.training.metric import Metric
from gclip.training.problem import Problem, Source
from gclip.training.problem_data import ProblemData
from gclip.training.problem_errors import within
from gclip.training.problem_registry import PROBLEMS, SETTINGS, find_problem

if TYPE_CHECKING:
    from gclip.training.dataset import Dataset

P = TypeVar("P", bound=type[Problem])


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
        find_problem.cache_clear()
        return cls

    if not isinstance(name, str):
        raise UsageError('write @register_problem("name") with the name in quotes and brackets')
    return decorate


def problem_of(task: str) -> Problem:
    """The problem that a task's spelling means: ``adding``, ``adding(length=200)``,
    ``torchvision:FashionMNIST``.

    Raises:
        UsageError: an unknown name or field, or a value that a field refuses.
    """
    return cast(Problem, find_problem(task))


def problem_meant(what: str | Problem | type[Problem]) -> Problem:
    """The problem that a spelling, an instance or a class means.

    Raises:
        UsageError: a spelling of none, something else, or a class that is not registered.
    """
    if isinstance(what, str):
        return problem_of(what)
    cls: Any = what if isinstance(what, type) else type(what)
    if not issubclass(cls, Problem):
        raise UsageError(
            f"a problem is meant by its spelling, its class or an instance of it, but got {what!r}"
        )
    if not cls.name or not PROBLEMS.has(cls.name) or PROBLEMS.get(cls.name) is not cls:
        raise UsageError(
            f"{cls.__name__} is not registered, so no run can be made of it; decorate it with "
            '@gclip.register_problem("name")'
        )
    return cls() if isinstance(what, type) else what


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
    problem = problem_of(task)
    place = None if folder is None else cache.without_tilde(folder, "the data folder")
    with within(problem, "data"):
        value = problem.data(Source(folder=place, download=download))
    name = str(problem)
    dataset = problem.as_dataset(value)
    if dataset is not None:
        return dataset
    with within(problem, "identity"):
        identity = problem.identity(value)
    if not isinstance(identity, str):
        raise UsageError(f"problem {problem.name}: identity must return text, not {identity!r}")
    return ProblemData(name=name, value=value, identity=identity[:16])


def metric_of_task(task: str) -> Metric:
    """The metric of a task; its worst value may still depend on the data."""
    return problem_of(task).metric


def _check_class(cls: Any, name: str) -> None:
    check_dataclass(cls, Problem, f"@register_problem({name!r})")
    metric = getattr(cls, "metric", None)
    if not isinstance(metric, Metric):
        raise UsageError(
            f"{cls.__name__} must have a metric, which says what a trained model is measured by: "
            'metric = gclip.Metric("mean squared error", better="lower", worst=1.0); '
            f"got {metric!r}"
        )
    _check_settings(cls)
    check_defaults(cls)


def _check_settings(cls: type[Problem]) -> None:
    known = SETTINGS
    own = field_names(cls)
    for where, given, names in (
        ("defaults", cls.defaults, known),
        ("small", cls.small, (*own, *known)),
    ):
        for key in given:
            if key not in names:
                raise UsageError(
                    f"{cls.__name__}.{where}: unknown field of RunConfig {key!r}"
                    f"{suggestion(key, names)} (choices: {', '.join(names)})"
                )
    for player, count in cls.updates.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UsageError(
                f"{cls.__name__}.updates: {player!r} must be a whole number ≥ 1, but got {count!r}"
            )
    if cls.metric.worst is None or math.isnan(cls.metric.worst):
        raise UsageError(f"{cls.__name__}.metric needs the worst value, which divergence scores")
