"""What the methods of a strategy answer, held to what they promise: one sentence where it is wrong.

What only costs on a cold path is looked at always: exceptions, and memory that nobody declared. The
rest (shapes, dtypes, NaN) is looked at when a clipper first hears an answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from gclip.core.host import on_host
from gclip.core.seen import Band, Elements, Seen
from gclip.core.source_location import place_in, place_of, told
from gclip.core.strategy import Memory, Strategy
from gclip.errors import UsageError

MISTAKES = (Exception, SystemExit)
"""What is caught of a strategy's method: a plugin must not end the program."""

_STORABLE = (Tensor, list, tuple, dict, int, float, bool, str)


def remembered(strategy: Strategy, like: Tensor) -> Memory:
    """The strategy's memory before the first step; `UsageError` where it is none."""
    try:
        memory = strategy.remember(like)
    except MISTAKES as error:
        explain(strategy, "remember", error)
        raise
    if not isinstance(memory, Mapping):
        refuse(strategy, "remember", f"must return a dict of tensors, but returned {_kind(memory)}")
    for key, value in memory.items():
        if not isinstance(value, _STORABLE):
            refuse(
                strategy,
                "remember",
                f"may keep tensors, lists, dicts and numbers, but {key!r} is {_kind(value)}",
            )
    return memory


def explain(strategy: Strategy, method: str, error: BaseException) -> None:
    """Raise a sentence for what `method` of a strategy raised, unless `error` is one already.

    It returns where `error` did not come from that method, and for what is nobody's mistake: a
    device without memory, torch's own signals to those who trace.
    """
    if not _is_mistake(error):
        return
    place = place_in(error, _function(strategy, method).__code__.co_filename)
    if place:
        raise UsageError(f"{_name(strategy)}: {method}() raised {told(error)} ({place})") from error


def explain_limit(strategy: Strategy, seen: Seen, memory: Memory, error: BaseException) -> None:
    """Raise a sentence for what went wrong with a limit: it raised, or cannot be one.

    Args:
        strategy: that was asked.
        seen: what it was shown.
        memory: what it was given.
        error: what was raised.
    """
    explain(strategy, "limit", error)
    if _is_mistake(error):
        check_limit(strategy, strategy.limit(seen, memory), seen.norm)


def explain_learned(
    strategy: Strategy, seen: Seen, clipped_norm: Tensor, memory: Memory, error: BaseException
) -> None:
    """Raise a sentence for what went wrong with `Strategy.learn`.

    Args:
        strategy: that was asked.
        seen: what it was shown.
        clipped_norm: ``(…, groups)``.
        memory: what it was given.
        error: what was raised.
    """
    explain(strategy, "learn", error)
    if _is_mistake(error):
        check_learned(strategy, strategy.learn(seen, clipped_norm, memory), memory)


def explain_transformed(
    strategy: Strategy, seen: Elements, answer: object, memory: Memory, error: BaseException
) -> None:
    """Raise a sentence for what went wrong with a `Transform`.

    Args:
        strategy: that was asked.
        seen: what it was shown.
        answer: what it returned, if it got so far.
        memory: what it was given.
        error: what was raised.
    """
    explain(strategy, "transform", error)
    if _is_mistake(error):
        check_transformed(strategy, answer, seen.values, memory)


def check_limit(strategy: Strategy, limit: object, norm: Tensor) -> None:
    """`UsageError` where `limit` is none for groups with these norms.

    Values are looked at where that waits for nobody, and where the norms are numbers.
    """
    ends = limit if isinstance(limit, Band) else (limit,)
    least = -math.inf if isinstance(limit, Band) else 0.0
    for end in ends:
        if isinstance(end, Tensor):
            _check_tensor(strategy, end, norm, least)
        elif isinstance(end, bool) or not isinstance(end, int | float):
            refuse(
                strategy,
                "limit",
                "must return a number, a tensor that broadcasts to seen.norm, or a Band of two, "
                f"but returned {_kind(end)}",
            )
        elif not end >= least:
            refuse(
                strategy, "limit", f"must return numbers of at least {least:g}, but returned {end}"
            )


def _check_tensor(strategy: Strategy, limit: Tensor, norm: Tensor, least: float) -> None:
    if limit.dtype == torch.bool or limit.is_complex():
        refuse(
            strategy,
            "limit",
            f"must return numbers of a real dtype, but returned {_kind(limit)}",
        )
    sizes = zip(reversed(limit.shape), reversed(norm.shape), strict=False)
    if limit.ndim > norm.ndim or any(size not in (1, expected) for size, expected in sizes):
        refuse(
            strategy,
            "limit",
            f"must return a number or a tensor that broadcasts to seen.norm, whose shape is "
            f"{tuple(norm.shape)}, but returned {_kind(limit)}",
        )
    looked_at = on_host(limit) and on_host(norm) and bool(norm.isfinite().all())
    if looked_at and not bool((limit >= least).all()):
        bad = limit[~(limit >= least)].flatten()[0].item()
        refuse(strategy, "limit", f"must return numbers of at least {least:g}, but returned {bad}")


def check_learned(strategy: Strategy, new: object, memory: Memory) -> None:
    """`UsageError` where `new` is not what `Strategy.learn` may say of `memory`."""
    _check_memory(strategy, "learn", new, memory, "must return a dict of the entries that change")


def check_transformed(strategy: Strategy, answer: object, values: Tensor, memory: Memory) -> None:
    """`UsageError` where `answer` is not what a `Transform` may make of `values`.

    Args:
        strategy: that was asked.
        answer: what it returned.
        values: what it was shown.
        memory: what it was given.
    """
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[0], Tensor):
        refuse(
            strategy,
            "transform",
            "must return two things, the new values and the entries of memory that change, but "
            f"returned {_kind(answer)}",
        )
    new, entries = answer
    if new.shape != values.shape or new.dtype != values.dtype:
        refuse(
            strategy,
            "transform",
            f"must return values like seen.values, {_kind(values)}, but returned {_kind(new)}",
        )
    _check_memory(
        strategy, "transform", entries, memory, "must return, beside the values, a dict of entries"
    )


def _check_memory(
    strategy: Strategy, method: str, new: object, memory: Memory, promise: str
) -> None:
    if not isinstance(new, Mapping):
        hint = "; return {} where nothing changes" if new is None else ""
        refuse(strategy, method, f"{promise}, but returned {_kind(new)}{hint}")
    for key, value in new.items():
        if key not in memory:
            known = ", ".join(map(str, memory)) or "none"
            refuse(
                strategy,
                method,
                f"returned {key!r}, which remember() does not declare (declared: {known})",
            )
        old = memory[key]
        if isinstance(old, Tensor) and not (
            isinstance(value, Tensor) and (value.shape, value.dtype) == (old.shape, old.dtype)
        ):
            refuse(
                strategy,
                method,
                f"must keep the shape and dtype of {key!r}, {_kind(old)} as remember() made it, "
                f"but returned {_kind(value)}",
            )


def refuse(strategy: Strategy, method: str, what: str) -> NoReturn:
    """Raise the sentence, with the place of the method."""
    place = place_of(_function(strategy, method))
    raise UsageError(f"{_name(strategy)}: {method}() {what}" + (f" ({place})" if place else ""))


def _function(strategy: Strategy, method: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(type(strategy), method)
    return found


def _name(strategy: Strategy) -> str:
    return strategy.name or type(strategy).__name__


def _is_mistake(error: BaseException) -> bool:
    """Whether it is the author's to mend: what torch itself defines is about devices and traces."""
    known = isinstance(error, UsageError | FloatingPointError | MemoryError)
    return not known and not type(error).__module__.startswith("torch")


def _kind(value: object) -> str:
    """``a tensor of shape (3,), float64``; ``None``; ``a str``."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a tensor of shape {tuple(value.shape)}, {dtype}"
    return "None" if value is None else f"a {type(value).__name__}"
