"""Hold a problem or a model to every promise, and say which it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from torch import nn

from gclip.testing.contract import ContractBroken
from gclip.testing.promise import Promise, Result
from gclip.training.contract.model_subject import CONTRACT as MODELS
from gclip.training.contract.model_subject import ModelSubject
from gclip.training.contract.problem_subject import CONTRACT as PROBLEMS
from gclip.training.contract.problem_subject import ProblemSubject
from gclip.training.contract.world import world
from gclip.training.problem import Problem
from gclip.training.tasks import problem_meant


def check_problem(
    problem: str | Problem | type[Problem],
    *,
    only: Iterable[str] | None = None,
    seed: int = 0,
    data: str | Path | None = None,
) -> list[Result]:
    """Hold a problem to its contract, by short runs on the CPU.

    Args:
        problem: a task's spelling, a registered class, or an instance of one. Its runs have the
            fields of `Problem.small`, where it is not spelled with others.
        only: names of promises, where not all are to be checked.
        seed: of the runs.
        data: the folder with the data, where the problem needs one; nothing is downloaded.

    Returns:
        One `gclip.testing.Result` a promise, in the order of `problem_promises`.

    Raises:
        gclip.testing.ContractBroken: an AssertionError that lists every broken promise.
        UsageError: it is no registered problem, its data is not there, or `only` names no promise.
    """
    results = examine_problem(problem, only=only, seed=seed, data=data)
    return _kept(str(problem_meant(problem)), results)


def examine_problem(
    problem: str | Problem | type[Problem],
    *,
    only: Iterable[str] | None = None,
    seed: int = 0,
    data: str | Path | None = None,
) -> list[Result]:
    """As `check_problem`, without raising where promises are broken."""
    subject = ProblemSubject(problem_meant(problem), seed, data)
    with world(0):
        subject.data  # noqa: B018 - without it there is nothing to check, which is no breach
    return PROBLEMS.examine(subject, only, subject.cls.excused)


def check_model(
    model: str | Callable[..., nn.Module],
    *,
    inputs: Iterable[tuple[int, ...]] | None = None,
    only: Iterable[str] | None = None,
    seed: int = 0,
) -> list[Result]:
    """Hold a model to its contract, by forward and backward passes on the CPU.

    Args:
        model: its spelling, or the function that `gclip.register_model` has decorated.
        inputs: shapes of one example that it is tried with; by default those that it takes of
            features ``(7,)``, a sequence ``(5, 6)`` and images of some sizes.
        only: names of promises, where not all are to be checked.
        seed: of the weights and the examples.

    Returns:
        One `gclip.testing.Result` a promise, in the order of `model_promises`.

    Raises:
        gclip.testing.ContractBroken: an AssertionError that lists every broken promise.
        UsageError: it is no registered model, takes none of these inputs, or `only` names no
            promise.
    """
    subject = ModelSubject(model, seed, inputs)
    return _kept(subject.spelling, MODELS.examine(subject, only, subject.excused))


def examine_model(
    model: str | Callable[..., nn.Module],
    *,
    inputs: Iterable[tuple[int, ...]] | None = None,
    only: Iterable[str] | None = None,
    seed: int = 0,
) -> list[Result]:
    """As `check_model`, without raising where promises are broken."""
    subject = ModelSubject(model, seed, inputs)
    return MODELS.examine(subject, only, subject.excused)


def problem_promises() -> tuple[Promise[ProblemSubject], ...]:
    """Every promise of problems, in the order in which they are checked."""
    return PROBLEMS.promises()


def model_promises() -> tuple[Promise[ModelSubject], ...]:
    """Every promise of models, in the order in which they are checked."""
    return MODELS.promises()


def _kept(name: str, results: Sequence[Result]) -> list[Result]:
    if any(result.state == "broken" for result in results):
        raise ContractBroken(name, results)
    return list(results)
