"""The value of one field at which a strategy limits a wanted share of the steps."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gclip.core.fields import FieldInfo
from gclip.core.strategy import Strategy
from gclip.errors import UsageError
from gclip.survey.norm_log import Watched
from gclip.survey.replay import Replay, memoryless, replay
from gclip.survey.suggestions import Suggestion, percent

_GRID = 6  # values from low to high, both included
_HALVINGS = 12
_CLOSE = 0.002  # the search ends where the next value would differ by less than this share
_DIGITS = 3  # of a suggested value


class _Point(NamedTuple):
    """A value that was tried: its position from low to high, 0 to 1, and its rate of clipping."""

    position: float
    value: float
    rate: float


class ThresholdSearch:
    """The rates of a strategy at values of one field, and the value with a wanted rate."""

    def __init__(self, strategy: Strategy, info: FieldInfo, runs: Sequence[Watched]) -> None:
        self._strategy, self._info = strategy, info
        self._runs = [run for run in runs if len(run)]
        if not self._runs:
            raise UsageError("no step was watched whose gradients were finite")
        self.low, self.high = float(info.low or 0), float(info.high or 0)
        self._steps = sum(len(run) for run in self._runs)
        self._rates: dict[float, float] = {}
        self._memoryless = [memoryless(strategy, run) for run in self._runs]

    def row(self, row: Suggestion, target: float) -> Suggestion:
        """`row` with what was found."""
        info = self._info
        current = getattr(self._strategy, info.name)
        start = float(current) if isinstance(current, int | float) else None
        default_rate = None if start is None else self._rate(start)
        value = self._find(target, start, default_rate)
        rate = self._rate(value)
        if len(self._rates) > 1 and len(set(self._rates.values())) == 1:
            reason = f"limits {percent(rate)} of the steps whatever its {self._range}"
            return dataclasses.replace(row, reason=reason, default=start, default_rate=default_rate)
        chosen, outcomes = self._with(value), self._outcomes(value)
        limit = np.concatenate([each.limit.numpy().ravel() for each in outcomes])
        limit = limit[np.isfinite(limit)]
        spread = np.quantile(limit, (0.1, 0.5, 0.9)).tolist() if limit.size else None
        return dataclasses.replace(
            row,
            spelling=str(chosen),
            default=start,
            value=getattr(chosen, info.name),
            limited_rate=rate,
            default_rate=default_rate,
            limit=None if spread is None else spread[1],
            limits=None if spread is None else (spread[0], spread[2]),
            note=self._note(rate, target),
        )

    @property
    def _range(self) -> str:
        return f"{self._info.name} from {self.low:g} to {self.high:g}"

    def _note(self, rate: float, target: float) -> str:
        sentences = []
        if not self._close(rate, target):
            nearer = f"no {self._range} comes nearer to {percent(target)}"
            sentences.append(f"{nearer} than {percent(rate)}")
        if self._strategy.rule == "skip":
            sentences.append("a step beyond the limit is skipped whole, so you may want fewer")
        return "; ".join(sentences)

    def _close(self, rate: float, target: float) -> bool:
        """Whether no rate can be nearer, but for rounding to whole steps."""
        return abs(rate - target) <= max(0.5 / self._steps, 0.1 * target) + 1e-12

    def _exact(self, rate: float, target: float) -> bool:
        return abs(rate - target) <= 0.5 / self._steps + 1e-12

    def _find(self, target: float, start: float | None, default_rate: float | None) -> float:
        """The value with the rate nearest the target; of several, the one nearest to `start`."""
        if start is not None and default_rate is not None and self._exact(default_rate, target):
            return start
        scale = _Scale(self.low, self.high, self._info.log)
        positions = [i / (_GRID - 1) for i in range(_GRID)]
        tried = [
            _Point(position, value, rate)
            for position in positions
            if (rate := self._rate_if_valid(value := self._rounded(scale.value(position))))
            is not None
        ]
        if not tried:
            raise UsageError(f"refuses every {self._range}")
        origin = 0.5 if start is None else scale.position(start)
        crossings = [
            (min(abs(a.position - origin), abs(b.position - origin)), a, b)
            for a, b in itertools.pairwise(tried)
            if (a.rate - target) * (b.rate - target) <= 0
        ]
        if crossings:
            _, a, b = min(crossings, key=lambda crossing: crossing[0])
            tried += self._halve(a, b, scale, target)
        best = min(tried, key=lambda each: (abs(each.rate - target), abs(each.position - origin)))
        return best.value

    def _halve(
        self,
        a: _Point,
        b: _Point,
        scale: _Scale,
        target: float,
    ) -> list[_Point]:
        """Halve the stretch in which the rate passes the target, until it is short enough."""
        tried = []
        for _ in range(_HALVINGS):
            position = (a.position + b.position) / 2
            value = self._rounded(scale.value(position))
            if value in (a.value, b.value) or abs(b.value - a.value) <= _CLOSE * abs(value):
                break
            rate = self._rate_if_valid(value)
            if rate is None:
                break
            new = _Point(position, value, rate)
            tried.append(new)
            if self._exact(rate, target):
                break
            if (a.rate - target) * (rate - target) <= 0:
                b = new
            else:
                a = new
        return tried

    def _rounded(self, value: float) -> float:
        if self._info.type is int:
            value = round(value)
        elif value:
            value = round(value, _DIGITS - 1 - math.floor(math.log10(abs(value))))
        return min(max(value, self.low), self.high)

    def _rate_if_valid(self, value: float) -> float | None:
        """The rate at a value; None where the strategy refuses it beside its other fields."""
        try:
            self._with(value)
        except UsageError:
            return None
        return self._rate(value)

    def _rate(self, value: float) -> float:
        if value not in self._rates:
            limited = sum(int(each.limited.sum()) for each in self._outcomes(value))
            self._rates[value] = limited / self._steps
        return self._rates[value]

    def _outcomes(self, value: float) -> list[Replay]:
        changed = self._with(value)
        return [
            replay(changed, run, at_once=at_once)
            for run, at_once in zip(self._runs, self._memoryless, strict=True)
        ]

    def _with(self, value: float) -> Strategy:
        change: dict[str, Any] = {self._info.name: value}
        return dataclasses.replace(self._strategy, **change)


@dataclass(frozen=True)
class _Scale:
    """The way from low to high, in equal steps or by equal factors, as positions from 0 to 1."""

    low: float
    high: float
    log: bool

    def value(self, position: float) -> float:
        if self.log:
            return float(self.low * (self.high / self.low) ** position)
        return self.low + (self.high - self.low) * position

    def position(self, value: float) -> float:
        if self.high == self.low:
            return 0.0
        if self.log:
            value = max(value, 1e-300)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)
