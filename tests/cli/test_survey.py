"""``gclip survey``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gclip as library

Command = Any  # of conftest.py
TINY = ("--fraction", "0.1", "--epochs", "2", "--lr", "0.02", "--device", "cpu")


def test_table_and_figure(gclip: Command, tmp_path: Path) -> None:
    answer = gclip("survey", *TINY, "-s", "norm", "-s", "agc", "-s", "none")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("digits, lenet, sgd lr 0.02, 10 % of the images, batch 32, ")
    assert "norm(max_norm=" in answer.out
    assert "agc(clip_factor=" in answer.out
    assert "none: no threshold to tune" in answer.out
    assert "figure in runs/figures (PNG and SVG): survey" in answer.out
    assert {p.name for p in (tmp_path / "runs/figures").iterdir()} == {"survey.png", "survey.svg"}
    assert not list(tmp_path.rglob("config.json"))


def test_json_has_a_row_for_every_strategy(gclip: Command, tmp_path: Path) -> None:
    answer = gclip("survey", *TINY, "--steps", "8", "--json", "--no-figures", "--clip-rate", "0.25")
    assert answer.code == 0
    assert [row["strategy"] for row in answer.json["rows"]] == list(library.names())
    assert (answer.json["steps"], answer.json["left_out"]) == (8, 0)
    norm = next(row for row in answer.json["rows"] if row["strategy"] == "norm")
    assert norm["limited_rate"] == 0.25
    assert (norm["field"], norm["default"]) == ("max_norm", 1)
    assert answer.json["figures"] == []
    assert not (tmp_path / "runs").exists()


def test_seeds_and_a_folder_for_the_figure(gclip: Command, tmp_path: Path) -> None:
    answer = gclip(
        "survey", *TINY, "-s", "norm", "--steps", "5", "--seeds", "3,5", "--out", "here", "--json"
    )
    assert answer.json["seeds"] == [3, 5]
    assert answer.json["steps"] == 10
    assert answer.json["figures"] == ["here/survey.png", "here/survey.svg"]
    assert (tmp_path / "here/survey.svg").exists()


def test_a_training_that_fails_is_said_to_be_one(gclip: Command) -> None:
    answer = gclip("survey", *TINY, "--lr", "100", "-s", "norm", "--no-figures")
    assert answer.code == 0
    assert "Seed 0 d" in answer.out  # diverged, or did not learn
    assert "try a lower --lr" in answer.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-s", "nrom"], "did you mean 'norm'?"),
        (["-s", "chain(norm, value)"], "not at a chain"),
        (["--clip-rate", "10"], "--clip-rate must be above 0 and below 1, but got 10"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--seeds", "many"], "--seeds"),
        (["--lr", "-1"], "lr must be > 0"),
        (["--out", "file/here"], "file/here"),
    ],
    ids=str,
)
def test_wrong_input(gclip: Command, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "file").write_text("")
    answer = gclip("survey", *arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    assert said in answer.err
