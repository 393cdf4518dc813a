"""Hold a strategy to every promise, and say which it breaks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from itertools import islice

from gclip.core.source_location import place_in, told
from gclip.core.strategy import Strategy, is_strategy_class
from gclip.errors import UsageError, unknown
from gclip.testing.applicability import DoesNotApply
from gclip.testing.promises import Promise, Result, promises
from gclip.testing.subject import DEFAULT_COMPILER, Subject

MOST = 3
"""How many breaches of one promise are told; the first usually says it all."""


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
    return [_examine(each, Subject(cls, seed, compiler)) for each in _selected(only)]


def _selected(only: Iterable[str] | None) -> tuple[Promise, ...]:
    every = promises()
    if only is None:
        return every
    wanted = [only] if isinstance(only, str) else list(only)
    names = [each.name for each in every]
    for name in wanted:
        if name not in names:
            unknown("promise", name, names)
    return tuple(each for each in every if each.name in wanted)


def _examine(promise: Promise, subject: Subject) -> Result:
    excuse = subject.excuse(promise.name)
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
    ) as error:  # whatever a strategy raises is a breach, and the next is checked
        messages.append(_raised(error, subject.cls))
    return Result(promise.name, promise.sentence, "broken" if messages else "ok", tuple(messages))


def _raised(error: BaseException, cls: type[Strategy]) -> str:
    """``KeyError: 'mean' (line 30 of mine.py)``: the last line of the strategy's own file."""
    place = place_in(error.__cause__ or error, inspect.getsourcefile(cls) or "")
    return f"raised {told(error)}" + (f" ({place})" if place else "")
