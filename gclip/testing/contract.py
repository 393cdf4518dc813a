"""Hold a strategy to every promise, and say which it breaks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence

from gclip.core.source_location import place_in, told
from gclip.core.strategy import Strategy, is_strategy_class
from gclip.errors import UsageError
from gclip.testing.promises import CONTRACT, Promise, Result
from gclip.testing.subject import DEFAULT_COMPILER, Subject


class ContractBroken(AssertionError):
    """A strategy breaks promises; the message lists all of them, with the numbers.

    Attributes:
        results: those of all promises, the kept ones too.
    """

    def __init__(self, name: str, results: Sequence[Result]) -> None:
        self.results = tuple(results)
        broken = [result for result in results if result.state == "broken"]
        count = "1 promise" if len(broken) == 1 else f"{len(broken)} promises"
        lines = [f"  {r.promise}: {said}" for r in broken for said in r.said]
        super().__init__("\n".join([f"{name} breaks {count} of {len(results)}", *lines]))


def check_strategy(
    cls: type[Strategy],
    *,
    only: Iterable[str] | None = None,
    seed: int = 0,
    compiler: str = DEFAULT_COMPILER,
) -> list[Result]:
    """Hold a strategy class to its contract.

    Args:
        only: names of promises, where not all are to be checked.
        seed: of the gradients and of the settings drawn.
        compiler: the backend of ``torch.compile`` for whole steps. ``aot_eager`` takes half the
            time of the default and needs no C++ compiler.

    Returns:
        One `Result` a promise, in the order of `promises`.

    Raises:
        ContractBroken: an AssertionError that lists every broken promise with its numbers.
        UsageError: `cls` is no strategy class, or `only` names no promise.
    """
    results = examine(cls, only=only, seed=seed, compiler=compiler)
    if any(result.state == "broken" for result in results):
        raise ContractBroken(cls.name or cls.__name__, results)
    return results


def examine(
    cls: type[Strategy],
    *,
    only: Iterable[str] | None = None,
    seed: int = 0,
    compiler: str = DEFAULT_COMPILER,
) -> list[Result]:
    """As `check_strategy`, without raising where promises are broken."""
    if not is_strategy_class(cls) or inspect.isabstract(cls):
        raise UsageError(f"check_strategy takes a dataclass derived from Strategy, not {cls!r}")
    return [_examine(each, Subject(cls, seed, compiler)) for each in CONTRACT.selected(only)]


def _examine(promise: Promise, subject: Subject) -> Result:
    excuse = subject.excuse(promise.name)
    if excuse is not None:
        return promise.excused(excuse)
    return promise.examine(subject, lambda error: _raised(error, subject.cls))


def _raised(error: BaseException, cls: type[Strategy]) -> str:
    """``KeyError: 'mean' (line 30 of mine.py)``: the last line of the strategy's own file."""
    place = place_in(error.__cause__ or error, inspect.getsourcefile(cls) or "")
    return f"raised {told(error)}" + (f" ({place})" if place else "")
