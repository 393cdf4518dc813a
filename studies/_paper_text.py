"""What README and docs say of a paper's record: each block a text made from the record alone.

A block stands between two comments, ``<!-- record: NAME -->`` and ``<!-- end of record -->``, and
``gclip paper draw`` writes it there; ``--check`` says where a page has another text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError, choose
from gclip.results.metrics import metric_of
from gclip.studies import _paper_answers as answers
from gclip.studies._paper import RIVALS
from gclip.studies._report import columns as report_columns
from gclip.studies._words import measured
from gclip.text.screen import plural
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    from gclip.results.record import Record

HEADLINES = ("cifar10", "digits")
"""Sections whose table is the README's: the first of them that the record has."""
SHORT = 6
"""Rows of the README's table, beside those of ``none`` and ``norm``."""
_BLOCK = re.compile(
    r"(<!-- record: (?P<name>[^>]+?) -->\n)(?P<text>.*?)(<!-- end of record -->)", re.DOTALL
)


def blocks(text: str) -> dict[str, str]:
    """The blocks of a page: name to what stands there."""
    return {match["name"]: match["text"] for match in _BLOCK.finditer(text)}


def inserted(text: str, record: Record) -> str:
    """The page with every block as the record has it.

    Raises:
        UsageError: a block of another name, or one of a section that the record lacks.
    """
    return _BLOCK.sub(lambda m: f"{m[1]}{block(m['name'], record)}{m[4]}", text)


def without(text: str) -> str:
    """The page without its blocks."""
    return _BLOCK.sub("", text)


def block(name: str, record: Record) -> str:
    """A block by name: of some, the section follows after a blank.

    Raises:
        UsageError: an unknown name, or a section that the record lacks.
    """
    kind, _, section = name.partition(" ")
    make = _BLOCKS[choose(kind, tuple(_BLOCKS), "block of a record")]
    return make(record, section).strip("\n") + "\n"


def headline(record: Record, _: str = "") -> str:
    """The README's: tuned against tuned, with what it is and how many claims it allows."""
    name = next((each for each in HEADLINES if f"{each}-tuned" in record.parts), None)
    if name is None:
        raise UsageError(f"the record has none of the sections {', '.join(HEADLINES)}")
    part, told = record.parts[f"{name}-tuned"], record.sections[name]
    metric = metric_of(record.results(part.name).runs)
    rows = list(part.table)
    shown = [row for place, row in enumerate(rows) if place < SHORT or row["strategy"] in RIVALS]
    left = len(rows) - len(shown)
    more = f" The best {SHORT} of {len(rows)}, with `none` and `norm`." if left else ""
    return "\n\n".join(
        [
            f"{told['what']} {plural(told['trials'], 'trial')} for each strategy, `none` "
            f"included, learning rate and threshold searched together; the winners with "
            f"{plural(rows[0]['n'], 'fresh seed')} each.{more}",
            _table(shown, report_columns(rows, metric)),
            f"{measured('Test', metric).replace('test', 'Test', 1)}, with 95 % intervals; ▲ better "
            "or trains more often, ▼ worse or less often: what a paired test, corrected over the "
            "whole table, lets us claim. " + answers.claims_sentence(rows),
        ]
    )


def tuned(record: Record, section: str) -> str:
    """The whole table of a section that was tuned."""
    part = record.parts[choose(f"{section}-tuned", tuple(record.parts), "part of the record")]
    metric = metric_of(record.results(part.name).runs)
    return _table(part.table, report_columns(list(part.table), metric))


def sections(record: Record, _: str = "") -> str:
    """All sections: question, setting, table, what is near an end, versions, command."""
    return "\n\n".join(_section(record, name) for name in record.sections)


def _section(record: Record, name: str) -> str:
    told = record.sections[name]
    own = record.runs[record.runs["section"] == name]
    counts = own["role"].value_counts()
    how = ", ".join(f"{counts[role]} {role}" for role in sorted(counts.index))
    lines = [
        f"## {name}",
        f"**{told['question']}** {told['what']}",
    ]
    for part in record.parts.values():
        if part.section == name and part.table and "of" not in part.rows:
            lines += [_table(part.table, part.columns)]
    near = told.get("near an end") or []
    if near:
        lines.append("Winners near an end of their range, which may owe their place to it:")
        lines.append("\n".join(f"- {each}" for each in near))
    lines.append(f"Runs: {how}. Source: {told['source']}. To make it again: `{told['command']}`.")
    return "\n\n".join(lines)


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    table = TextTable(
        columns=[
            Column(heading=heading, words=heading in ("tuned", "strategy", "condition", "evidence"))
            for heading in columns
        ]
    )
    for row in rows:
        table.add(*(_cell(row.get(key)) for key in columns.values()))
    return f"```text\n{table.text(160)}\n```"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_BLOCKS: dict[str, Callable[[Record, str], str]] = {
    "headline": headline,
    "tuned": tuned,
    "sections": sections,
    "over-problems": answers.over_problems,
    "against-defaults": answers.against_defaults,
    "winners": answers.winners,
    "sensitivity": answers.sensitivity,
    "ceilings": answers.ceilings,
    "searched-again": answers.searched_again,
    "near-ends": answers.near_ends,
}
