"""Errors in a problem's own code, as one sentence that says which problem, where, and what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from gclip.core.source_location import last_place, told
from gclip.errors import UsageError

if TYPE_CHECKING:
    from gclip.training.problem import Problem

T = TypeVar("T")
_RESERVED = ("epoch", "step", "train_loss", "seconds", "score")
_OWN = str(Path(__file__).parents[1])


class within:
    """Around a call of a problem's method: what it raises becomes a `UsageError` naming both.

    A class, since it is entered several times a step: a generator's takes four times as long.
    """

    __slots__ = ("_method", "_problem")

    def __init__(self, problem: Problem, method: str) -> None:
        self._problem, self._method = problem, method

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            _tell(self._problem, self._method, error)


def _tell(problem: Problem, method: str, error: BaseException) -> None:
    """Raise what is to be said instead of `error`; return where that is the error itself."""
    if isinstance(error, UsageError):
        if problem.answers_for_itself or str(error).startswith(f"problem {problem.name}"):
            return
        raise UsageError(f"problem {problem.name}: {method} {_said(error)}") from error
    passed_on = (MemoryError, FloatingPointError, StopIteration)
    if isinstance(error, Exception | SystemExit) and not isinstance(error, passed_on):
        place = last_place(error, outside=_OWN)
        where = f" ({place})" if place else ""
        raise UsageError(f"problem {problem.name}: {method} raised {told(error)}{where}") from error


def _said(error: UsageError) -> str:
    text = str(error)
    return text if text.startswith("must ") else f"refuses: {text}"


def each_within(problem: Problem, method: str, items: Iterable[T]) -> Iterator[T]:
    """The items of an iterable that a problem's method gave, its errors named as by `within`."""
    with within(problem, method):
        iterator = iter(items)
    while True:
        with within(problem, method):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def checked_players(problem: Problem, found: Any) -> dict[str, nn.Module]:
    """The networks that a problem built, by name.

    Raises:
        UsageError: they are no networks, have no parameters to train, or share one.
    """
    players = {"model": found} if isinstance(found, nn.Module) else found
    where = f"problem {problem.name}: players must return networks by name"
    if not isinstance(players, Mapping) or not players:
        raise UsageError(f"{where}, {{'model': a torch.nn.Module}}, but got {found!r}")
    owners: dict[int, str] = {}
    for name, network in players.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise UsageError(f"{where}, and a name is a word, but got {name!r}")
        if not isinstance(network, nn.Module):
            raise UsageError(f"{where}, but {name} is {type(network).__name__}")
        parameters = list(network.parameters())
        if not any(parameter.requires_grad for parameter in parameters):
            raise UsageError(f"{where}, but {name} has no parameter that is trained")
        for parameter in parameters:
            other = owners.setdefault(id(parameter), name)
            if other != name:
                raise UsageError(
                    f"problem {problem.name}: the players {other} and {name} share a parameter, "
                    "which one optimizer would change for both; give each its own"
                )
    return dict(players)


def checked_loss(problem: Problem, item: Any, players: Iterable[str]) -> tuple[str, Tensor]:
    """A player's name and its loss, of what `losses` yielded.

    Raises:
        UsageError: it is something else.
    """
    known = list(players)
    where = f"problem {problem.name}: losses must yield pairs (player, loss)"
    if not isinstance(item, tuple) or len(item) != 2:
        raise UsageError(f"{where}, as in 'yield \"{known[0]}\", loss', but got {_short(item)}")
    player, loss = item
    if player not in known:
        raise UsageError(f"{where} of the players {', '.join(known)}, but got {player!r}")
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        raise UsageError(f"{where} whose loss is one number, but for {player} got {_short(loss)}")
    if not loss.requires_grad:
        raise UsageError(
            f"{where} whose loss depends on the player's parameters, but that of {player} has no "
            "gradient (was it detached, or computed under no_grad?)"
        )
    return player, loss.reshape(())


def checked_scores(problem: Problem, found: Any, metric: str) -> dict[str, float]:
    """The values that `evaluate` gave, as numbers.

    Raises:
        UsageError: it gave something else, or not the metric.
    """
    where = f"problem {problem.name}: evaluate must return numbers by name"
    if not isinstance(found, Mapping):
        raise UsageError(f"{where}, {{{metric!r}: 0.5}}, but got {_short(found)}")
    scores: dict[str, float] = {}
    for name, value in found.items():
        if name in _RESERVED:
            raise UsageError(f"{where}, and {name!r} is a column of every curve; name it otherwise")
        try:
            scores[str(name)] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(f"{where}, but {name!r} is {_short(value)}") from None
    if metric not in scores:
        raise UsageError(
            f"{where}, the metric {metric!r} among them, but got {', '.join(scores) or 'nothing'}"
        )
    return scores


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    text = repr(value)
    return text if len(text) <= 60 else type(value).__name__
