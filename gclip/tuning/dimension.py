"""One thing that a study searches, and how it is written: ``0.001..1:log``, ``unit|tensor``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gclip.core.schedules import Schedule
from gclip.core.spelling import read
from gclip.errors import UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One thing that is searched: numbers from `low` to `high`, or `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """As it is written in a space: ``0.001..1:log``."""
        if self.choices:
            return "|".join(word(choice) for choice in self.choices)
        return f"{word(self.low)}..{word(self.high)}:{'log' if self.log else 'linear'}"

    @property
    def distribution(self) -> BaseDistribution:
        """The same in Optuna's words."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices:
            return CategoricalDistribution(self.choices)
        low, high = _ends(self)
        if self.whole:
            return IntDistribution(int(low), int(high), log=self.log)
        return FloatDistribution(low, high, log=self.log)

    def suggest(self, trial: Trial, name: str) -> Any:
        """A trial's value; numbers have four digits, so that people can copy them.

        That is far finer than the noise of training.
        """
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        low, high = _ends(self)
        if self.whole:
            return trial.suggest_int(name, int(low), int(high), log=self.log)
        value = rounded(trial.suggest_float(name, low, high, log=self.log))
        return min(max(value, low), high)

    def grid(self, points: int) -> tuple[Any, ...]:
        """At most `points` values from end to end, evenly spaced on the scale; all the choices."""
        if self.choices:
            return self.choices
        low, high = _ends(self)
        shares = [i / (points - 1) for i in range(points)] if points > 1 else [0.5]
        if self.log:
            values = [low * (high / low) ** share for share in shares]
        else:
            values = [low + (high - low) * share for share in shares]
        if self.whole:
            return tuple(dict.fromkeys(min(max(round(v), int(low)), int(high)) for v in values))
        return tuple(dict.fromkeys(min(max(rounded(v), low), high) for v in values))


def read_dimension(
    name: str, text: str, like: Dimension, value_of: Callable[[Any], Any]
) -> Dimension | Any:
    """The dimension that `text` is for the field `name`, or the single value that it holds.

    Args:
        like: the scale and type that a range has where its text does not say.
        value_of: a value in the field's own type; `UsageError` for one that the field refuses.
    """
    where = f"the space {name}={text}"
    values = [_value(part, where) for part in text.split("|")]
    if len(values) > 1:
        choices = tuple(_within(where, value_of, value) for value in values)
        if len(set(choices)) < len(choices):
            raise UsageError(f"{where} names a choice twice")
        if any(isinstance(choice, Schedule) for choice in choices):
            raise UsageError(f"{where}: a schedule can be held, but not searched")
        return Dimension(choices=choices)
    if ".." not in text:
        return _within(where, value_of, values[0])
    first, _, rest = text.partition("..")
    last, colon, scale = rest.partition(":")
    if colon and scale not in ("log", "linear"):
        raise UsageError(
            f"{where} does not read: write LOW..HIGH, LOW..HIGH:log or LOW..HIGH:linear"
        )
    low, high = _number(first, where), _number(last, where)
    log = scale == "log" if colon else like.log
    if not low < high or not math.isfinite(high) or not math.isfinite(low):
        raise UsageError(f"{where}: low < high must hold, but got low={low:g}, high={high:g}")
    if log and low <= 0:
        hint = "" if colon else "; write :linear for a linear scale"
        raise UsageError(f"{where}: a log scale needs low > 0, but got low={low:g}{hint}")
    ends = [_within(where, value_of, end) for end in (low, high)]
    # A field of whole numbers gives them back as such.
    whole = like.whole or any(isinstance(end, int) for end in ends)
    if whole and not (low.is_integer() and high.is_integer()):
        raise UsageError(f"{where}: {name} takes whole numbers, but got {first} and {last}")
    return Dimension(low=low, high=high, log=log, whole=whole)


def rounded(value: Any, digits: int = _DIGITS) -> Any:
    """A float to a few significant digits; anything else as it is."""
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def word(value: Any) -> str:
    """A value as a spelling has it: numbers short, words bare."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _value(text: str, where: str) -> Any:
    """A number, a word, or a schedule, as in a strategy's spelling; a range as it is."""
    if ".." in text:
        return text
    try:
        [(_, value)] = read(f"x(y={text.strip()})").named.items()
        return value
    except ValueError:  # it does not read, or it is more than one value
        raise UsageError(
            f"{where} does not read: {text!r} is no number, word or schedule"
        ) from None


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{where} does not read: {text!r} is no number") from None


def _within(where: str, value_of: Callable[[Any], Any], value: Any) -> Any:
    """`value` in its field's own type; the field's objection, with where it came from."""
    try:
        return value_of(value)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _ends(found: Dimension) -> tuple[float, float]:
    if found.low is None or found.high is None:
        raise RuntimeError("a dimension without choices has two ends")
    return found.low, found.high
