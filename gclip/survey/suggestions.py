"""What a survey suggests: a threshold for each strategy, and the table of them."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gclip.errors import choose
from gclip.text.table import Column, TextTable, fill

_WIDTH = 100

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
        note: what else to know, such as a wanted rate that no value reaches.
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
        clip_rate: the share of steps that was to be limited.
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
            f"Thresholds that limit about {percent(self.clip_rate)} of {self.steps:,} steps"
            + (f" ({self.left_out:,} not finite and left out)" if self.left_out else ""),
            width,
        )
        suggested = [row for row in self.rows if row.value is not None]
        table = TextTable(
            columns=[
                Column(heading="suggested", words=True),
                Column(heading="limited"),
                Column(heading="by default"),
                Column(heading="compared with", words=True, least=13),
            ]
        )
        for row in suggested:
            table.add(*_cells(row))
        lines += ["", table.text(width) if suggested else "none"]
        prose = min(width, _WIDTH)
        lines += _listed("", {row.strategy: row.note for row in suggested if row.note}, prose)
        reasons = {row.strategy: row.reason for row in self.rows if row.reason}
        lines += _listed("Not by norms:", reasons, prose)
        lines += ["", *(line for note in self.notes for line in fill(note, prose))]
        return "\n".join(lines)


def _cells(row: Suggestion) -> tuple[str, str, str, str]:
    default = f"{percent(row.default_rate)} ({row.default:g})" if row.default is not None else "–"
    return row.spelling, percent(row.limited_rate), default, row.compared_with


def percent(rate: float | None) -> str:
    """``12.5 %``, or a dash."""
    return "–" if rate is None else f"{100 * rate:.1f} %".replace(".0 %", " %")


def _listed(heading: str, sentences: Mapping[str, str], width: int) -> list[str]:
    """``norm, agc: why`` for each sentence, those of several strategies once."""
    by_sentence: dict[str, list[str]] = {}
    for name, sentence in sentences.items():
        by_sentence.setdefault(sentence, []).append(name)
    lines = [
        line
        for text, names in by_sentence.items()
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
