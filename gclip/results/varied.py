"""Which number varies among the strategies of a store? The curve over a threshold, read from runs.

Two spellings of one class that differ in one number are two points of one curve:
``agc(clip_factor=0.01)`` and ``agc(clip_factor=0.1)`` are ``agc`` at two values of its
``clip_factor``. Which field that is, is seen from the spellings; a field that is not spelled has
its default, where the class is known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gclip.core.fields import FieldInfo, fields_of
from gclip.core.registry import get
from gclip.core.spelling import Call, read
from gclip.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("strategy", "threshold", "value")


@dataclass(frozen=True, kw_only=True)
class Spelled:
    """One spelling, taken apart.

    Attributes:
        family: the spelling without the number that varies.
        threshold: which field that is; empty where the class has none.
        value: of it; NaN where it is not known.
        default: of the field; None where it is not known, or not a number.
    """

    family: str
    threshold: str = ""
    value: float = math.nan
    default: float | None = None


def take_apart(spellings: Iterable[str]) -> dict[str, Spelled]:
    """Each spelling as a family and the value of its threshold.

    The threshold of a class is the number with the most values among the spellings; of equals the
    first in the class, which is what studies call its threshold.

    Example:
        >>> found = take_apart(["norm(max_norm=0.5)", "norm", "norm(max_norm=2, scope=unit)"])
        >>> [(each.family, each.value) for each in found.values()]
        [('norm', 0.5), ('norm', 1.0), ('norm(scope=unit)', 2.0)]
    """
    by_class: dict[str, dict[str, Call]] = {}
    apart: dict[str, Spelled] = {}
    for text in dict.fromkeys(spellings):
        try:
            call = read(text)
        except UsageError:
            apart[text] = Spelled(family=text)
            continue
        by_class.setdefault(call.name, {})[text] = call
    for name, calls in by_class.items():
        if name in ("chain", "players"):
            apart |= {text: Spelled(family=text) for text in calls}
            continue
        apart |= _of_class(name, calls)
    return apart


def with_thresholds(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the columns `LABELS`: `strategy` is the family then, `spelling` what it was.

    Runs that have them, as a study's do, stay as they are.
    """
    if "value" in runs and "threshold" in runs:
        return runs
    apart = take_apart(runs["strategy"])
    found = runs["strategy"].map(apart)
    return runs.assign(
        spelling=runs["strategy"],
        strategy=[each.family for each in found],
        threshold=[each.threshold for each in found],
        value=[each.value for each in found],
    )


def default_of(family: str, threshold: str) -> float | None:
    """The default of a family's threshold; None where it is not known, or not a number."""
    info = _fields(read(family).name).get(threshold)
    return None if info is None or not _is_number(info.default) else float(info.default)


def _of_class(name: str, calls: dict[str, Call]) -> dict[str, Spelled]:
    known = _fields(name)
    numeric = [
        field
        for field, info in known.items()
        if info.kind == "tunable" and (_is_number(info.default) or info.low is not None)
    ]
    spelled = [
        field for call in calls.values() for field, value in call.named.items() if _is_number(value)
    ]
    candidates = list(dict.fromkeys([*numeric, *spelled]))
    if not candidates:
        return {text: Spelled(family=text) for text in calls}

    def value_of(call: Call, field: str) -> float:
        default = known[field].default if field in known else math.nan
        value = call.named.get(field, default)
        return float(value) if _is_number(value) else math.nan

    counts = {
        field: len({value_of(call, field) for call in calls.values()}) for field in candidates
    }
    threshold = max(candidates, key=lambda field: counts[field])  # the first of equals
    default = value_of(Call(name, {}, ()), threshold)
    return {
        text: Spelled(
            family=_without(name, call, threshold),
            threshold=threshold,
            value=value_of(call, threshold),
            default=None if math.isnan(default) else default,
        )
        for text, call in calls.items()
    }


def _without(name: str, call: Call, threshold: str) -> str:
    rest = {field: value for field, value in call.named.items() if field != threshold}
    if not rest:
        return name
    said = ", ".join(f"{field}={_text(value)}" for field, value in rest.items())
    return f"{name}({said})"


def _text(value: Any) -> str:
    return f"{value:g}" if _is_number(value) else str(value)


def _fields(name: str) -> dict[str, FieldInfo]:
    try:
        return {info.name: info for info in fields_of(get(name))}
    except UsageError:  # of a plugin that is not loaded here
        return {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
