"""Mistakes of authors at the command line: one sentence, and what is right goes on."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from gclip import figures, studies

Command = Any  # of conftest.py
TINY = ("--fraction", "0.1", "--epochs", "1", "--batch-size", "64", "--device", "cpu")
PLUGIN = '''
from dataclasses import dataclass
import torch
import gclip

@gclip.register("five")
@dataclass(frozen=True, kw_only=True)
class Five(gclip.Strategy):
    """A limit for five groups, however many there are."""
    def limit(self, seen, memory):
        return torch.ones(5)
'''
SAID = (
    "five: limit() must return a number or a tensor that broadcasts to seen.norm, whose shape is "
    "(1,), but returned a tensor of shape (5,), float32 (line 10 of five.py)"
)


@pytest.mark.parametrize("how", [("--workers", "1"), ("--workers", "2"), ("--fleet", "2")])
def test_the_runs_of_a_wrong_strategy_fail_with_its_sentence_and_the_others_go_on(
    gclip: Command, tmp_path: Path, how: tuple[str, str]
) -> None:
    (tmp_path / "five.py").write_text(PLUGIN)
    answer = gclip("compare", "--plugin", "five.py", "-s", "five", "-s", "norm", *TINY,
                   "--seeds", "2", "--no-figures", "--json", *how)  # fmt: skip
    assert answer.code == 1
    found = answer.json
    assert found["runs"]["trained"] == 4
    assert {run["message"] for run in found["runs"]["failed"]} == {SAID}
    assert {row["strategy"]: row["n"] for row in found["table"]}["norm"] == 2


def test_a_wrong_strategy_alone_is_wrong_input(gclip: Command, tmp_path: Path) -> None:
    (tmp_path / "five.py").write_text(PLUGIN)
    answer = gclip("train", "--plugin", "five.py", "-s", "five", *TINY)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"gclip: error: {SAID}\n"


def test_a_study_that_returns_none_is_named_with_its_file(
    gclip: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(request: Any) -> None:
        """It forgot to return its answer."""

    monkeypatch.setattr(studies.get("lr_ceiling"), "run", run)
    answer = gclip("study", "run", "lr_ceiling", *TINY)
    assert answer.code == 2
    assert answer.err.startswith(
        "gclip: error: the study lr_ceiling must return a gclip.tuning.study.Answer from run(), "
        "but returned None (line "
    )
    assert answer.err.endswith(" of test_mistakes.py)\n")


@pytest.mark.filterwarnings("always::gclip.figures.FigureWarning")
def test_a_broken_figure_does_not_keep_the_others_from_being_drawn(
    gclip: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("gclip.figures.scores")

    def broken(results: Any) -> None:
        raise KeyError("acuracy")

    runs = ("compare", "-s", "none", "-s", "norm", *TINY, "--seeds", "1", "--workers", "1")
    monkeypatch.setattr(module, "draw", broken)
    answer = gclip(*runs)
    assert answer.code == 0
    assert "gclip: warning: the figure scores cannot be drawn: KeyError: 'acuracy'" in answer.err
    drawn = {path.stem for path in (tmp_path / "runs" / "figures").glob("*/*.png")}
    usual = {name for name in figures.names() if figures.is_usual(name)}
    # One seed has no difference to a baseline, and no layer was watched.
    assert drawn == usual - {"scores", "layers", "forest"}
    alone = gclip("figures", "--figure", "scores")
    assert (alone.code, alone.out) == (2, "")
    assert alone.err.startswith("gclip: error: the figure scores cannot be drawn: KeyError")
