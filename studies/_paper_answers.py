"""What a paper's record answers of the questions that those ask who choose a threshold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gclip.results.metrics import metric_of
from gclip.studies._pairs import better, worse
from gclip.studies._words import listed
from gclip.text.screen import percent

if TYPE_CHECKING:
    from gclip.results.record import Part, Record


def tuned_parts(record: Record) -> dict[str, Part]:
    """The tables of the sections that tuned, the first search of each."""
    return {
        part.section: part
        for part in record.parts.values()
        if part.study == "report" and part.name == f"{part.section}-tuned"
    }


def claims_sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of a table are shown to be better or worse than tuned ``none``."""
    up = [row["strategy"] for row in rows if better(row["vs_none_evidence"])]
    down = [row["strategy"] for row in rows if worse(row["vs_none_evidence"])]
    count = sum(row["vs_none_pairs"] is not None for row in rows)
    said = f"Of {count} {'strategy' if count == 1 else 'strategies'}, "
    said += f"{len(up)} {'is' if len(up) == 1 else 'are'} shown to be better than tuned `none`"
    said += f" ({_named(up)})" if up else ""
    said += f", {len(down)} worse" + (f" ({_named(down)})" if down else "") + "."
    return said


def over_problems(record: Record, _: str = "") -> str:
    """Clipping beside none, both tuned, problem by problem."""
    headings = ("section", "metric", "tuned none", "best tuned", "vs tuned none", "shown better",
                "shown worse")  # fmt: skip
    found = []
    for name, part in tuned_parts(record).items():
        rows = list(part.table)
        metric = metric_of(record.results(part.name).runs)
        none = next(row for row in rows if row["strategy"] == "none")
        first = next(row for row in rows if row["strategy"] != "none")
        others = [row for row in rows if row["vs_none_pairs"] is not None]
        up = sum(better(row["vs_none_evidence"]) for row in others)
        down = sum(worse(row["vs_none_evidence"]) for row in others)
        unit = f"{metric.name} in %" if metric.unit == "%" else metric.name
        found.append((
            name, f"{unit}, {metric.better} is better", none["score_text"],
            f"`{first['tuned']}` {first['score_text']}", first["vs_none_text"],
            f"{up} of {len(others)}", f"{down} of {len(others)}",
        ))  # fmt: skip
    return _markdown(headings, found, right=(2, 4, 5, 6))


def against_defaults(record: Record, _: str = "") -> str:
    """What tuning bought each strategy, section by section."""
    headings = ("section", "strategies", "better tuned than as they come", "worse")
    found = []
    for name, part in tuned_parts(record).items():
        rows = [row for row in part.table if row["vs_default_pairs"] is not None]
        up = sum(better(row["vs_default_evidence"]) for row in rows)
        down = sum(worse(row["vs_default_evidence"]) for row in rows)
        found.append((name, len(rows), up, down))
    return _markdown(headings, found, right=(1, 2, 3))


def winners(record: Record, _: str = "") -> str:
    """Where the searches of the best-known strategies ended, and how often those clip."""
    headings = ("section", "winner", "learning rate", "as it comes", "steps clipped", "as it comes")
    found = []
    for name, part in tuned_parts(record).items():
        for row in part.table:
            if row["strategy"] not in ("norm", "value", "agc", "percentile", "zclip"):
                continue
            rates = [f"{row[key]:.3g}" for key in ("lr", "default_lr")]
            shares = [f"{percent(row[key])} %" for key in ("clip_rate", "default_clip_rate")]
            found.append((name, f"`{row['tuned']}`", *rates, *shares))
    return _markdown(headings, found, right=(2, 3, 4, 5))


def sensitivity(record: Record, section: str = "") -> str:
    """How wide the plateau of each threshold is."""
    return _grid(record, section or "sensitivity")


def ceilings(record: Record, section: str = "") -> str:
    """Which learning rates each strategy allows."""
    return _grid(record, section or "lr_ceiling")


def _grid(record: Record, name: str) -> str:
    part = record.parts.get(name)
    if part is None:
        return _lacking(name)
    rows = [[_cell(row.get(key)) for key in part.columns.values()] for row in part.table]
    return _markdown(tuple(part.columns), rows)


def searched_again(record: Record, _: str = "") -> str:
    """What two more searches of the same found."""
    again = [part for part in record.parts.values() if part.section == "digits-again"]
    if not again:
        return _lacking("digits-again")
    first = record.parts["digits-tuned"]
    found = []
    for row in again[0].table:
        own = [
            next(each for each in part.table if each["strategy"] == row["strategy"])
            for part in (first, *again)
        ]
        cells = (f"`{each['tuned']}` {each['score_text']}" for each in own)
        found.append((row["strategy"], *cells))
    return _markdown(("strategy", "first search", "second", "third"), found, right=(1, 2, 3))


def near_ends(record: Record, _: str = "") -> str:
    """How many winners lie near an end of their range."""
    found = []
    for name in tuned_parts(record):
        own = record.trials[record.trials["section"] == name]
        count = int(own["best"].astype(bool).sum())
        said = record.sections[name].get("near an end") or []
        near = len({each.partition(":")[0] for each in said})
        found.append((name, count, near))
    return _markdown(("section", "winners", "near an end"), found, right=(1, 2))


def _markdown(
    headings: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[int] = ()
) -> str:
    """A table of cells that are Markdown; the columns at the places `right` are flush right."""
    rule = "".join("--:|" if place in right else "---|" for place in range(len(headings)))
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in (headings, *rows)]
    return "\n".join([lines[0], f"|{rule}", *lines[1:]])


def _lacking(name: str) -> str:
    return f"The record does not have the section {name} yet: `gclip paper train --section {name}`."


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"`{value}`" if "(" in str(value) and "=" in str(value) else str(value)


def _named(words: Sequence[str]) -> str:
    text: str = listed(f"`{each}`" for each in words)
    return text
