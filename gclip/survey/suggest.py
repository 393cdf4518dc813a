"""Which threshold would clip one step in ten? Searched for every strategy by replaying norms.

What is searched is a strategy's first tunable number, between the `low` and `high` of its field;
everything else stays as it is. Nothing here knows any strategy by name.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gclip.core.fields import FieldInfo, fields_of
from gclip.core.strategy import Strategy, Transform
from gclip.errors import UsageError, choose
from gclip.survey.norm_log import Watched
from gclip.survey.replay import Outcome, memoryless, replay
from gclip.text.table import Column, TextTable, fill

_GRID = 6  # values from low to high, both included
_HALVINGS = 12
_CLOSE = 0.002  # the search ends where the next value would differ by less than this share
_WIDTH = 100
_DIGITS = 3  # of a suggested value

GROUPS = {
    "global": "all gradients",
    "layer": "each layer",
    "tensor": "each tensor",
    "unit": "each unit",
    "element": "each tensor",
}

NOTES = (
    "Limited: share of the steps whose total gradient norm shrinks by more than 1 %.",
    "Norms of a training without clipping were replayed. Clipping changes the steps, and so the "
    "norms that follow, which no replay knows: take the values as a start for tuning.",
)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A starting threshold for one strategy, or why there is none.

    Attributes:
        strategy: the registered name.
        spelling: the strategy with the suggested value, as `gclip.parse` reads it.
        scope: which gradients share one norm.
        field: the field that was searched; None where there is none.
        default: its default, or what was given.
        value: what is suggested; None where nothing is.
        limited_rate: the expected share of steps limited.
        default_rate: the same with the field left at `default`.
        compared_with: what the limit is held against.
        limit: the median limit on that; None where there is none.
        limits: nine in ten limits are above the first of these, and nine in ten below the second.
        note: what else to know, such as a wished rate that no value reaches.
        reason: why nothing is suggested; "" where something is.
    """

    strategy: str
    spelling: str
    scope: str
    field: str | None = None
    default: float | None = None
    value: float | None = None
    limited_rate: float | None = None
    default_rate: float | None = None
    compared_with: str = ""
    limit: float | None = None
    limits: tuple[float, float] | None = None
    note: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Suggestions:
    """Starting thresholds for strategies: printable, iterable, ``suggestions["norm"]``.

    Attributes:
        rows: one a strategy, those without a suggestion too.
        clip_rate: the share of steps that was wished to be limited.
        steps: how many steps were replayed.
        left_out: how many more there were, whose gradients were not finite.
        notes: how to read it.
    """

    rows: tuple[Suggestion, ...]
    clip_rate: float
    steps: int
    left_out: int
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[Suggestion]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Suggestion:
        """The (first) row of a strategy, by its name or its spelling as it was given."""
        names = {key: row for row in self.rows[::-1] for key in (row.strategy, row.spelling)}
        return names[choose(name, names, "strategy of this survey")]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain numbers and text, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int = _WIDTH) -> str:
        """What is suggested as a table ``width`` characters wide, with the notes."""
        lines = fill(
            f"Thresholds that limit about {_percent(self.clip_rate)} of {self.steps:,} steps"
            + (f" ({self.left_out:,} not finite and left out)" if self.left_out else ""),
            width,
        )
        found = [row for row in self.rows if row.value is not None]
        table = TextTable(
            columns=[
                Column(heading="suggested", words=True),
                Column(heading="limited"),
                Column(heading="by default"),
                Column(heading="compared with", words=True, least=13),
            ]
        )
        for row in found:
            table.add(*_cells(row))
        lines += ["", table.text(width) if found else "none"]
        prose = min(width, _WIDTH)
        lines += _listed("", {row.strategy: row.note for row in found if row.note}, prose)
        reasons = {row.strategy: row.reason for row in self.rows if row.reason}
        lines += _listed("Not by norms:", reasons, prose)
        lines += ["", *(line for note in self.notes for line in fill(note, prose))]
        return "\n".join(lines)


def _cells(row: Suggestion) -> tuple[str, str, str, str]:
    default = f"{_percent(row.default_rate)} ({row.default:g})" if row.default is not None else "–"
    return row.spelling, _percent(row.limited_rate), default, row.compared_with


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.1f} %".replace(".0 %", " %")


def _listed(heading: str, sentences: Mapping[str, str], width: int) -> list[str]:
    """``norm, agc: why`` for each sentence, those of several strategies once."""
    told: dict[str, list[str]] = {}
    for name, sentence in sentences.items():
        told.setdefault(sentence, []).append(name)
    lines = [
        line
        for text, names in told.items()
        for line in textwrap.wrap(
            f"{', '.join(dict.fromkeys(names))}: {text}",
            width,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
    return ["", *([heading] if heading else []), *lines] if lines else []


Find = Callable[[Strategy], "Sequence[Watched]"]


def suggest(
    strategies: Sequence[Strategy], find: Find, clip_rate: float = 0.1
) -> tuple[Suggestion, ...]:
    """A row for each strategy.

    Args:
        find: the watched runs that a strategy's limit is to be held against; a `UsageError` where
            there are none becomes the row's reason.
        clip_rate: the share of steps that is to be limited.

    Raises:
        UsageError: a `clip_rate` that is not between 0 and 1.
    """
    if not 0 < clip_rate < 1:
        raise UsageError(f"clip_rate must be above 0 and below 1, but got {clip_rate!r}")
    return tuple(_row(strategy, find, clip_rate) for strategy in strategies)


def main_tunable(strategy: Strategy) -> FieldInfo | None:
    """The field that is the strategy's threshold: its first tunable number."""
    for info in fields_of(type(strategy)):
        if info.kind == "tunable" and info.low is not None and info.high is not None:
            return info
    return None


def _row(strategy: Strategy, find: Find, wish: float) -> Suggestion:
    row = Suggestion(strategy=strategy.name, spelling=str(strategy), scope=strategy.scope)
    info = main_tunable(strategy)
    reason = _reason(strategy, info)
    if info is None or reason:
        return dataclasses.replace(row, reason=reason)
    row = dataclasses.replace(row, field=info.name, compared_with=_compared(strategy))
    try:
        search = _Search(strategy, info, find(strategy))
        return search.row(row, wish)
    except UsageError as error:
        return dataclasses.replace(row, reason=str(error))
    except Exception as error:  # of a plugin, say: the others' rows are not lost for it
        return dataclasses.replace(row, reason=f"failed with {type(error).__name__}: {error}")


def _reason(strategy: Strategy, info: FieldInfo | None) -> str:
    """Why norms cannot tell a threshold, "" where they can."""
    if info is None:
        return "no threshold to tune"
    if isinstance(strategy, Transform):
        return "changes elements by a rule of its own, of which norms tell nothing"
    if strategy.side != "gradient":
        what = "the optimizer's update" if strategy.side == "update" else "single examples"
        return f"clips {what}, and only gradients are watched"
    if strategy.rule == "normalize":
        return "gives every gradient the same norm, so no step is left unclipped"
    return ""


def _compared(strategy: Strategy) -> str:
    if strategy.scope == "element" or strategy.rule == "clamp":
        return f"largest element of {GROUPS[strategy.scope]}"
    order = "" if strategy.order == 2 else f"{strategy.order:g}-"
    return f"{order}norm of {GROUPS[strategy.scope]}"


class _Search:
    """The rates of a strategy at values of one field, and the value with a wished rate."""

    def __init__(self, strategy: Strategy, info: FieldInfo, runs: Sequence[Watched]) -> None:
        self._strategy, self._info = strategy, info
        self._runs = [run for run in runs if len(run)]
        if not self._runs:
            raise UsageError("no step was watched whose gradients were finite")
        self.low, self.high = float(info.low or 0), float(info.high or 0)
        self._steps = sum(len(run) for run in self._runs)
        self._rates: dict[float, float] = {}
        self._at_once = [memoryless(strategy, run) for run in self._runs]

    def row(self, row: Suggestion, wish: float) -> Suggestion:
        """`row` with what was found."""
        info = self._info
        given = getattr(self._strategy, info.name)
        start = float(given) if isinstance(given, int | float) else None
        default_rate = None if start is None else self._at(start)
        value = self._find(wish, start, default_rate)
        rate = self._at(value)
        if len(self._rates) > 1 and len(set(self._rates.values())) == 1:
            reason = f"limits {_percent(rate)} of the steps whatever its {self._range}"
            return dataclasses.replace(row, reason=reason, default=start, default_rate=default_rate)
        made, outcomes = self._with(value), self._outcomes(value)
        limit = np.concatenate([each.limit.numpy().ravel() for each in outcomes])
        limit = limit[np.isfinite(limit)]
        spread = np.quantile(limit, (0.1, 0.5, 0.9)).tolist() if limit.size else None
        return dataclasses.replace(
            row,
            spelling=str(made),
            default=start,
            value=getattr(made, info.name),
            limited_rate=rate,
            default_rate=default_rate,
            limit=None if spread is None else spread[1],
            limits=None if spread is None else (spread[0], spread[2]),
            note=self._note(rate, wish),
        )

    @property
    def _range(self) -> str:
        return f"{self._info.name} from {self.low:g} to {self.high:g}"

    def _note(self, rate: float, wish: float) -> str:
        said = []
        if not self._close(rate, wish):
            nearer = f"no {self._range} comes nearer to {_percent(wish)}"
            said.append(f"{nearer} than {_percent(rate)}")
        if self._strategy.rule == "skip":
            said.append("a step beyond the limit is skipped whole, so you may want fewer")
        return "; ".join(said)

    def _close(self, rate: float, wish: float) -> bool:
        """Whether no rate can be nearer, but for rounding to whole steps."""
        return abs(rate - wish) <= max(0.5 / self._steps, 0.1 * wish) + 1e-12

    def _exact(self, rate: float, wish: float) -> bool:
        return abs(rate - wish) <= 0.5 / self._steps + 1e-12

    def _find(self, wish: float, start: float | None, default_rate: float | None) -> float:
        """The value with the rate nearest the wish; of several, the one nearest to `start`."""
        if start is not None and default_rate is not None and self._exact(default_rate, wish):
            return start
        scale = _Scale(self.low, self.high, self._info.log)
        places = [i / (_GRID - 1) for i in range(_GRID)]
        tried = [
            (place, value, rate)
            for place in places
            if (rate := self._known(value := self._rounded(scale.value(place)))) is not None
        ]
        if not tried:
            raise UsageError(f"refuses every {self._range}")
        home = 0.5 if start is None else scale.place(start)
        crossings = [
            (min(abs(a[0] - home), abs(b[0] - home)), a, b)
            for a, b in itertools.pairwise(tried)
            if (a[2] - wish) * (b[2] - wish) <= 0
        ]
        if crossings:
            _, a, b = min(crossings, key=lambda crossing: crossing[0])
            tried += self._halve(a, b, scale, wish)
        best = min(tried, key=lambda each: (abs(each[2] - wish), abs(each[0] - home)))
        return best[1]

    def _halve(
        self,
        a: tuple[float, float, float],
        b: tuple[float, float, float],
        scale: _Scale,
        wish: float,
    ) -> list[tuple[float, float, float]]:
        """Halve the stretch in which the rate passes the wish, until it is short enough."""
        tried = []
        for _ in range(_HALVINGS):
            place = (a[0] + b[0]) / 2
            value = self._rounded(scale.value(place))
            if value in (a[1], b[1]) or abs(b[1] - a[1]) <= _CLOSE * abs(value):
                break
            rate = self._known(value)
            if rate is None:
                break
            new = (place, value, rate)
            tried.append(new)
            if self._exact(rate, wish):
                break
            if (a[2] - wish) * (rate - wish) <= 0:
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

    def _known(self, value: float) -> float | None:
        """The rate at a value; None where the strategy refuses it beside its other fields."""
        try:
            self._with(value)
        except UsageError:
            return None
        return self._at(value)

    def _at(self, value: float) -> float:
        if value not in self._rates:
            limited = sum(int(each.limited.sum()) for each in self._outcomes(value))
            self._rates[value] = limited / self._steps
        return self._rates[value]

    def _outcomes(self, value: float) -> list[Outcome]:
        made = self._with(value)
        return [
            replay(made, run, at_once=at_once)
            for run, at_once in zip(self._runs, self._at_once, strict=True)
        ]

    def _with(self, value: float) -> Strategy:
        change: dict[str, Any] = {self._info.name: value}
        return dataclasses.replace(self._strategy, **change)


@dataclass(frozen=True)
class _Scale:
    """The way from low to high, in equal steps or by equal factors, as places from 0 to 1."""

    low: float
    high: float
    log: bool

    def value(self, place: float) -> float:
        if self.log:
            return float(self.low * (self.high / self.low) ** place)
        return self.low + (self.high - self.low) * place

    def place(self, value: float) -> float:
        if self.high == self.low:
            return 0.0
        if self.log:
            value = max(value, 1e-300)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)
