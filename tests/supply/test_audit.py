"""What `tests.supply.audit` makes of pip-audit's answers; and what is pinned."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.supply import audit

ROOT = Path(__file__).parents[2]
FINE: Any = {"name": "rich", "version": "14.3", "vulns": []}
HOLE: Any = {
    "name": "rich",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}],
}
UNKNOWN: Any = {"name": "rich", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ([[FINE]], 0, "1 packages of pins have no known holes (pypi)"),
        ([[UNKNOWN], [FINE]], 0, "have no known holes (osv)"),
        ([[FINE, HOLE]], 1, "rich 1.0: PYSEC-1, put right in 1.1"),
        ([[UNKNOWN], [HOLE]], 1, "PYSEC-1"),
        ([[UNKNOWN], []], 2, "pins could not be audited: pypi knows 0 of 1 packages; osv knows 0"),
    ],
)
def test_answers(
    answers: list[Any],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left = iter(answers)
    monkeypatch.setattr(audit, "_ask", lambda *_: next(left))
    assert audit.main("pins") == code
    assert said in capsys.readouterr().out


def test_what_is_needed_is_pinned_and_nothing_says_from_where() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.match(r"[a-z0-9._-]+==[\w.]+( ; .+)?$", line) for line in lines)
    pinned = {line.partition("==")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.split(r"[<>=\[]", each)[0].lower() for each in needed} <= pinned
