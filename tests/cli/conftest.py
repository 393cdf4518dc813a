"""Commands run in this process, in a folder of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna  # noqa: F401 - or the first command that needs it would say so
import pytest

from gclip.cli import main
from gclip.text import progress

TINY = ("--fraction", "0.1", "--epochs", "1", "--batch-size", "64", "--device", "cpu")


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Answer]


@pytest.fixture
def gclip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """``gclip("train", "-s", "agc")`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    # What is said of a wait depends on the machine; `test_progress.py` is about it.
    monkeypatch.setattr(progress, "_QUIET", 3600.0)
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 3600.0)

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = main(list(arguments))
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return run
