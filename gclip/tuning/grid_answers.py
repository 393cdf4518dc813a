"""What studies have answered, kept beside the runs: their tables are read and drawn again from it.

A search keeps its trials in a study of Optuna's (`gclip.tuning.sqlite`). A grid (``sensitivity``,
``lr_ceiling``, ``noise``) leaves nothing but runs, of which nobody could tell what they were for:
so an answer says which runs are its own, and what it calls them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.core.files import read_file
from gclip.errors import UsageError
from gclip.tuning.options import options_of

if TYPE_CHECKING:
    from gclip.tuning.study import Answer, Request

_FOLDER = Path("studies") / "answers"
_ALWAYS = ("strategies", "seeds", "points", "space", "lr_range", "seed", "name")
"""These are part of the question whether they were given or not; the other options, where given."""


def write_answer(
    study: str, request: Request, answer: Answer, figures: Sequence[Path], command: str = ""
) -> Path:
    """Write down how a study was answered; the same question again replaces its answer.

    Args:
        study: its name.
        request: what was asked.
        answer: what it found.
        figures: that were drawn of it.
        command: that asked it.

    Raises:
        UsageError: the store takes no file.
    """
    config = json.loads(request.base.to_json())
    given = [
        name
        for name in options_of()
        if name not in _ALWAYS and getattr(request, name) != getattr(type(request), name)
    ]
    asked = {name: getattr(request, name) for name in (*_ALWAYS, *given)}
    question = json.dumps([study, config, asked], sort_keys=True, default=str)
    digest = hashlib.sha256(question.encode()).hexdigest()[:12]
    path = request.store.path / _FOLDER / f"{study}-{digest}.json"
    strategies = dict.fromkeys(str(row["strategy"]) for row in answer.rows if "strategy" in row)
    entry = {
        "study": study,
        "setting": config,
        "strategies": list(strategies),
        "rows": len(answer.rows),
        "figures": [str(figure) for figure in figures],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "table": [dict(row) for row in answer.rows],
        "columns": dict(answer.columns),
        "notes": [note for note in answer.notes if note],
        "labels": [dict(each) for each in answer.labels],
        "searches": list(answer.searches),
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(entry, indent=1, default=str) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot note the answer in '{path}': {error.strerror}") from error
    return path


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a store holds, the latest last, and a sentence for each file that does not read."""

    found: tuple[dict[str, Any], ...]
    unreadable: tuple[str, ...]


def answers_in(store: Path) -> Answers:
    """All answers of a store."""
    found, unreadable = [], []
    for path in sorted((store / _FOLDER).glob("*.json")):
        try:
            entry = json.loads(read_file(path))
            found.append({**entry, "when": datetime.fromisoformat(entry["date"])})
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            unreadable.append(f"'{path}' is no answer of a study")
    found.sort(key=lambda each: (each.pop("when"), each["study"]))
    return Answers(tuple(found), tuple(unreadable))
