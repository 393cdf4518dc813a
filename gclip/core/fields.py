"""A strategy's fields: what they accept, what a study may search, how they are shown.

One declaration serves all of it: ``max_norm: float = tunable(1.0, low=1e-3, high=100.0, log=True)``
is validated when a strategy is created, becomes part of a run's identity, is listed by
``gclip list``, and is a dimension of every study's search space.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union

from gclip.core.numbers import as_number, as_whole, shown
from gclip.core.schedules import Schedule
from gclip.errors import UsageError, suggestion

_KEY = "gclip"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one field accepts, and how a study searches it."""

    kind: Literal["tunable", "setting"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    doc: str = ""
    shared: bool = False

    def broken_by(self, value: Any) -> str | None:
        """The rule that `value` breaks, in words, or None."""
        if self.choices is not None:
            return None if value in self.choices else "one of " + _listed(self.choices)
        if value is None or isinstance(value, bool | str):
            return None
        if math.isnan(value):
            return "a number, not NaN"
        checks: tuple[tuple[float | None, Callable[[Any, float], bool], str], ...] = (
            (self.above, lambda v, b: v > b, "above"),
            (self.at_least, lambda v, b: v >= b, "at least"),
            (self.below, lambda v, b: v < b, "below"),
            (self.at_most, lambda v, b: v <= b, "at most"),
        )
        broken = [b for b, holds, _ in checks if b is not None and not holds(value, b)]
        if not broken:
            return None
        return " and ".join(f"{word} {b:g}" for b, _, word in checks if b is not None)


@dataclass(frozen=True, kw_only=True)
class FieldInfo:
    """One field of a strategy class, as ``gclip list`` and the studies read it."""

    name: str
    default: Any
    kind: Literal["tunable", "setting"]
    low: float | None
    high: float | None
    log: bool
    choices: tuple[Any, ...] | None
    doc: str
    type: type
    shared: bool = False


def tunable(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    log: bool = False,
    choices: tuple[Any, ...] | None = None,
    above: float | None = None,
    at_least: float | None = 0.0,
    below: float | None = None,
    at_most: float | None = None,
    doc: str = "",
) -> Any:
    """A field that a study searches: within ``low..high`` (on a log scale if `log`) or `choices`.

    `low` and `high` bound the search, not the value: what a user may set is bounded by
    `above`, `at_least` (0 unless said otherwise), `below` and `at_most`.

    >>> import gclip
    >>> {field.name: field.high for field in gclip.fields_of(gclip.get("norm"))}["max_norm"]
    100.0

    Args:
        default: the value where none is given.
        low: the smallest that a study tries.
        high: the largest that a study tries.
        log: whether a study searches on a log scale.
        choices: the values that it may have, in place of a range.
        above: what a value must be above.
        at_least: what a value must be at least.
        below: what a value must be below.
        at_most: what a value must be at most.
        doc: what it is, in a few words.

    Returns:
        What stands as the field's default in a strategy's class.

    Raises:
        UsageError: when neither a range nor choices are given, or ``low <= high`` does not hold.
    """
    if choices is None:
        if low is None or high is None:
            raise UsageError("a tunable field needs low and high, or choices")
        if not low <= high:
            raise UsageError(f"low <= high must hold for a tunable field, but got {low=}, {high=}")
        if log and low <= 0:
            raise UsageError(f"a log-scaled tunable field needs low > 0, but got {low=}")
    rule = Rule(
        kind="tunable", low=low, high=high, log=log, choices=choices,
        above=above, at_least=None if above is not None else at_least,
        below=below, at_most=at_most, doc=doc,
    )  # fmt: skip
    return dataclasses.field(default=default, metadata={_KEY: rule})


def setting(
    default: Any,
    *,
    choices: tuple[Any, ...] | None = None,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    doc: str = "",
    shared: bool = False,
) -> Any:
    """A field that users may set and studies leave alone.

    >>> import gclip
    >>> {field.name: field.kind for field in gclip.fields_of(gclip.get("agc"))}["eps"]
    'setting'

    Args:
        default: the value where none is given.
        choices: the values that it may have.
        above: what a value must be above.
        at_least: what a value must be at least.
        below: what a value must be below.
        at_most: what a value must be at most.
        doc: what it is, in a few words.
        shared: marks what a base class gives to all strategies: shown and spelled after their own.

    Returns:
        What stands as the field's default in a strategy's class.
    """
    rule = Rule(
        kind="setting", choices=choices, above=above, at_least=at_least,
        below=below, at_most=at_most, doc=doc, shared=shared,
    )  # fmt: skip
    return dataclasses.field(default=default, metadata={_KEY: rule})


def fields_of(cls: type) -> tuple[FieldInfo, ...]:
    """The fields of a strategy class, its own first, those every strategy shares last."""
    infos = [_info(cls, f) for f in dataclasses.fields(cls)]
    return tuple(sorted(infos, key=lambda info: info.shared))


def field_names(cls: type) -> tuple[str, ...]:
    """The names of a strategy class's fields, in the order of `fields_of`."""
    return tuple(info.name for info in fields_of(cls))


def check(owner: str, cls: type, name: str, value: Any) -> Any:
    """`value` in the field's own type (1 becomes 1.0 for a float field), or `UsageError`.

    `owner` is how the strategy is called in the message.
    """
    if isinstance(value, Schedule):
        return _check_schedule(owner, cls, name, value)
    kind = _hints(cls)[name]
    coerced = _coerce(value, kind)
    if coerced is _WRONG:
        raise UsageError(f"{owner}: {name} must be {_type_words(kind)}, but got {shown(value)}")
    rule = rule_of(cls, name)
    broken = rule.broken_by(coerced)
    if broken:
        hint = suggestion(str(value), map(str, rule.choices)) if rule.choices else ""
        raise UsageError(f"{owner}: {name} must be {broken}, but got {shown(value)}{hint}")
    return coerced


def _check_schedule(owner: str, cls: type, name: str, schedule: Schedule) -> Schedule:
    """A schedule stands where a tunable number does, and both its ends follow the field's rule."""
    info = next(i for i in fields_of(cls) if i.name == name)
    if info.kind != "tunable" or info.low is None:
        tunables = [i.name for i in fields_of(cls) if i.kind == "tunable" and i.low is not None]
        raise UsageError(
            f"{owner}: {name} cannot follow the schedule {schedule} (fields that can: "
            f"{', '.join(tunables) or 'none'})"
        )
    for end in (schedule.start, schedule.end):
        check(owner, cls, name, end)
    return schedule


_WRONG = object()


def _coerce(value: Any, kind: Any) -> Any:
    options = typing.get_args(kind) if _is_union(kind) else (kind,)
    for option in options:
        if option is type(None):
            if value is None:
                return None
        elif option is float:
            number = as_number(value)
            if number is not None:
                return number
        elif option is int:
            whole = as_whole(value)
            if whole is not None:
                return whole
        elif typing.get_origin(option) is Literal or option is str:
            if isinstance(value, str):
                return value
        elif isinstance(value, option):
            return value
    return _WRONG


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (Union, types.UnionType)


def _type_words(kind: Any) -> str:
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}
    options = typing.get_args(kind) if _is_union(kind) else (kind,)
    return " or ".join(
        "none" if o is type(None)
        else "one of " + _listed(typing.get_args(o)) if typing.get_origin(o) is Literal
        else words.get(o, getattr(o, "__name__", str(o)))
        for o in options
    )  # fmt: skip


def _listed(values: typing.Iterable[Any]) -> str:
    return ", ".join(str(v) for v in values)


@cache
def rule_of(cls: type, name: str) -> Rule:
    """What the field was declared with; one redeclared as a bare default keeps its base's rule.

    A field that a base shares with all strategies stays shared, however it is redeclared.
    """
    bases = (getattr(base, "__dataclass_fields__", {}) for base in cls.__mro__)
    declared = (fields[name].metadata.get(_KEY) for fields in bases if name in fields)
    rules = [rule for rule in declared if isinstance(rule, Rule)]
    if not rules:
        return Rule(kind="setting")
    return dataclasses.replace(rules[0], shared=any(rule.shared for rule in rules))


def _info(cls: type, f: dataclasses.Field[Any]) -> FieldInfo:
    rule = rule_of(cls, f.name)
    kind = _hints(cls)[f.name]
    plain = kind if isinstance(kind, type) else str
    return FieldInfo(
        name=f.name, default=f.default, kind=rule.kind, low=rule.low, high=rule.high,
        log=rule.log, choices=rule.choices, doc=rule.doc, type=plain, shared=rule.shared,
    )  # fmt: skip


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)
