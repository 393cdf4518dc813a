"""Promises about a strategy's fields: documented, checked, spelled, searched, scheduled."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from typing import Any

from gclip.core import registry
from gclip.core.fields import FieldInfo, fields_of, rule_of
from gclip.core.schedules import Schedule
from gclip.errors import UsageError
from gclip.testing.applicability import DoesNotApply
from gclip.testing.promises import promise
from gclip.testing.subject import Subject, between, whole

RANDOM_SETTINGS = 50


@promise("every field says what it is, and its default is one that a study may find")
def documented(subject: Subject) -> Iterator[str]:
    cls = subject.cls
    if not (cls.__doc__ or "").strip() or (cls.__doc__ or "").startswith(f"{cls.__name__}("):
        yield f"{cls.__name__} has no docstring: say what it does"
    for name, such_as in (("equation", "g ← g · min(1, c/‖g‖)"), ("paper", "Brock et al. 2021")):
        text = getattr(cls, name)
        if not isinstance(text, str) or (registry.ships_with_gclip(cls) and not text.strip()):
            yield f"{name} must be a text such as {such_as!r}, but is {text!r}"
    for info in fields_of(cls):
        if not info.doc and not info.shared:
            yield f"the field {info.name} has no doc: write tunable(…, doc=…) or setting(…, doc=…)"
        if info.default is None or isinstance(info.default, str):
            continue
        if info.low is None or info.high is None:
            continue
        if not info.low <= info.default <= info.high:
            yield (
                f"the default of {info.name} is {info.default:g}, outside the range that "
                f"studies search, {info.low:g} to {info.high:g}"
            )


@promise(
    "a value of the wrong type or out of range is refused by a UsageError that names the field"
)
def checked(subject: Subject) -> Iterator[str]:
    for info in fields_of(subject.cls):
        for value in _wrong(subject, info):
            try:
                subject.cls(**{info.name: value})
            except UsageError as error:
                if info.name not in str(error):
                    yield f"{info.name}={value!r} is refused without naming the field: {error}"
            except Exception as error:
                kind = type(error).__name__
                yield f"{info.name}={value!r} raises {kind}, not UsageError: {error}"
            else:
                yield f"{info.name}={value!r} is accepted"
        if info.low is not None and info.high is not None:
            for fraction in (0.0, 0.5, 1.0):
                value = between(info, fraction)
                if subject.try_create(**{info.name: value}) is None:
                    yield f"{info.name}={value!r} is refused, though studies search it"


def _wrong(subject: Subject, info: FieldInfo) -> list[Any]:
    """Values that the field cannot mean."""
    rule = rule_of(subject.cls, info.name)
    wrong: list[Any] = [[1], "no-such-word"]
    number = info.low is not None or isinstance(info.default, int | float)
    if isinstance(info.default, bool) or info.choices is not None:
        return wrong
    if info.name in ("scope", "rule", "side"):
        return [*wrong, 1]
    if typing.get_type_hints(subject.cls)[info.name] is str:
        return [[1], 1]
    if number:
        wrong += [math.nan, True]
    if number and whole(info):
        wrong += [1.5]
    if rule.above is not None:
        wrong += [rule.above, rule.above - 1]
    if rule.at_least is not None:
        wrong += [rule.at_least - 1]
    if rule.below is not None:
        wrong += [rule.below, rule.below + 1]
    if rule.at_most is not None:
        wrong += [rule.at_most + 1]
    return wrong


@promise("gclip.parse reads back what str() writes, for settings from all over the ranges")
def spelled(subject: Subject) -> Iterator[str]:
    if subject.cls.name not in registry.names():
        raise DoesNotApply("it is registered under no name, so it has no spelling")
    strategies = [
        created
        for settings in subject.random_settings(RANDOM_SETTINGS)
        if (created := subject.try_create(**settings))
    ]
    if not strategies:
        yield f"all of {RANDOM_SETTINGS} random settings from the ranges are refused"
    ends = [(info.name, between(info, 0.25), between(info, 0.75)) for info in subject.ranges]
    for name, start, end in ends:
        strategies.append(subject.create(**{name: Schedule("linear", start, end, 10)}))
    for strategy in [subject.cls(), *strategies]:
        text = str(strategy)
        back = registry.parse(text)
        if back != strategy:
            yield f"parse({text!r}) gives {back!r}, not {strategy!r}"


@promise("a tunable field that follows a schedule acts as the number that the schedule gives")
def scheduled(subject: Subject) -> Iterator[str]:
    if not subject.ranges:
        raise DoesNotApply("it has no tunable number")
    steps = 9
    for info in subject.ranges:
        value = between(info, 0.4)
        plain, constant = (
            subject.rig(subject.create(**{info.name: each})).run(0, steps)
            for each in (value, Schedule("linear", value, value, steps))
        )
        for step, (a, b) in enumerate(zip(plain, constant, strict=True)):
            expected, actual = float(a.clipped_norm.sum()), float(b.clipped_norm.sum())
            if not math.isclose(expected, actual, rel_tol=1e-4, abs_tol=1e-7):
                yield (
                    f"with {info.name}=linear({value:g}, {value:g}) step {step}'s clipped norm is "
                    f"{actual:g}, not {expected:g} as with {info.name}={value:g}"
                )
                break
