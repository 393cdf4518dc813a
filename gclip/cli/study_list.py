"""``gclip study list``: the studies there are, and those that a store holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from gclip.cli.options import Json, StoreFolder
from gclip.core.files import read_file
from gclip.core.kept import KeptAnswer
from gclip.text import screen
from gclip.text.progress import load
from gclip.text.streams import printable
from gclip.text.table import Column, TextTable

_LISTED = ("study", "setting", "strategies", "rows", "figures", "date")
"""What a list tells of an answer, which holds its whole table."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list")(list_studies)


def list_studies(store: StoreFolder = Path("runs"), json: Json = False) -> None:
    """List the studies that can be run, and those that a store holds with their best trials.

    \b
    Examples:
      gclip study list
      gclip study list --store runs --json
    """
    held = _held(store)
    for message in held["left_out"]:
        note_left_out(message)
    known, begun, found = held["studies"], held["begun"], held["answered"]
    if json:
        screen.echo_json(
            {
                "studies": known,
                "begun": begun,
                "answered": [each["listed"] for each in found],
                "left_out": held["left_out"],
            }
        )
        return
    questions = TextTable(
        columns=[Column(heading="study", words=True), Column(heading="question", words=True)]
    )
    for each in known:
        questions.add(each["study"], each["question"])
    screen.echo_table(questions)
    if not begun and not found:
        screen.echo_wrapped(f"\nNone was begun in {store}.")
    if begun:
        _show_begun(store, begun)
    if found:
        _show_answered(store, found)


def _held(store: Path) -> dict[str, Any]:
    """What there is to list, as it was kept for these very files, or worked out now."""
    before = _digest(store)
    kept = None if before is None else KeptAnswer(f"studies-{before}")
    found: dict[str, Any] | None = None if kept is None else kept.recall()
    if found is None:
        found = _looked_up(store)
        # What is left out is looked at again, and so is what somebody changes meanwhile.
        if kept is not None and not found["left_out"] and _digest(store) == before:
            kept.keep(found)
    return found


def _digest(store: Path) -> str | None:
    """Of all files that are listed; None where that cannot be known: somebody writes to one."""
    digest = hashlib.sha256()
    try:
        for folder in (store / "studies", store / "studies" / "answers"):
            for path in sorted(folder.glob("*")):
                if path.name.endswith(("-journal", "-wal")):
                    return None
                if path.suffix in (".db", ".json"):
                    content = hashlib.sha256(read_file(path)).hexdigest()
                    digest.update(f"{path}\0{content}\n".encode(errors="surrogateescape"))
    except OSError:
        return None
    return digest.hexdigest()[:32]


def _looked_up(store: Path) -> dict[str, Any]:
    load("torch", "optuna")
    from gclip import studies
    from gclip.cli.compare import setting_text
    from gclip.training import RunConfig
    from gclip.tuning.grid_answers import answers_in
    from gclip.tuning.sqlite import studies_in, summary
    from gclip.tuning.sqlite_file import UnreadableStudy

    known = [{"study": name, "question": studies.question(name)} for name in studies.names()]
    begun, left_out = [], []
    for path in studies_in(store).values():
        try:
            begun.append(summary(path))
        except UnreadableStudy as error:
            left_out.append(str(error))
    answers = answers_in(store)
    # What a search answered stands with its trials already.
    found = [each for each in answers.found if not each.get("searches")]
    answered = [
        {
            "listed": {k: v for k, v in each.items() if k in _LISTED},
            "setting": setting_text(RunConfig.of(each["setting"])),
        }
        for each in found
    ]
    left_out += answers.unreadable
    return {"studies": known, "begun": begun, "answered": answered, "left_out": left_out}


def note_left_out(message: str) -> None:
    """Say which study file is left out, and why."""
    screen.note(f"gclip: left out: {message}")


def _show_begun(store: Path, begun: Sequence[Mapping[str, Any]]) -> None:

    screen.echo(f"\nBegun in {store}:")
    table = TextTable(
        columns=[
            Column(heading="name", words=True),
            *(Column(heading=heading) for heading in ("trials", "pruned", "failed", "best")),
            Column(heading="with", words=True),
        ]
    )
    for found in begun:
        table.add(
            printable(found["name"]),
            *(str(found[key]) for key in ("trials", "pruned", "failed")),
            _best(found),
            printable(found["best"] or "–"),
        )
    screen.echo_table(table)


def _best(found: Mapping[str, Any]) -> str:
    """``93.1 %``; a metric that is no share is named, as each row may have another."""
    from gclip.results.metric_text import score_with_unit
    from gclip.training.metric import Metric

    metric = Metric.from_dict(found["metric"])
    name = "" if metric.unit == "%" or found["score"] is None else f"{metric.name} "
    return name + score_with_unit(metric, found["score"])


def _show_answered(store: Path, answered: Sequence[Mapping[str, Any]]) -> None:
    """Studies without trials: their runs are in the store, the same command shows them again."""
    screen.echo(f"\nAnswered in {store}; the same command shows it again:")
    table = TextTable(
        columns=[
            Column(heading="study", words=True),
            Column(heading="strategies", words=True),
            Column(heading="setting", words=True),
            Column(heading="rows"),
            Column(heading="date"),
        ]
    )
    for each, setting in ((one["listed"], one["setting"]) for one in answered):
        table.add(
            each["study"],
            ", ".join(each["strategies"]) or "–",
            setting,
            str(each["rows"]),
            each["date"][:10],
        )
    screen.echo_table(table)
