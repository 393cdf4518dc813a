"""``gclip show``: what there is to know about one strategy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import gclip as library
from gclip.cli.show_plugin import wrapped
from gclip.describe import NORMS, example

Command = Any  # of conftest.py


@pytest.mark.parametrize("name", library.names())
def test_every_strategy_can_be_shown(gclip: Command, name: str) -> None:
    answer = gclip("show", name)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].endswith(f" · {library.get(name).family}")
    assert max(map(cell_len, lines)) <= 100  # m̂ is one column, but two characters
    for field in library.fields_of(library.get(name)):
        assert any(line.startswith(f"{field.name} ") for line in lines), field.name
    assert "memory: " in answer.out


@pytest.mark.parametrize("name", library.names())
def test_every_example_shows_something(name: str) -> None:
    ran = example(library.get(name)())
    assert (ran.left != ran.norms) == (name != "none")
    assert len(ran.norms) == len(ran.left) <= 2 * len(NORMS)
    for was, now in ran.shortened.values():
        assert now < was


def test_the_catalogues_numbers(gclip: Command) -> None:
    ran = gclip("show", "percentile(p=50)", "--json").json["example"]
    assert ran["norms"][:9] == [1, 2, 3, 2, 2, 10, 2, 2, 0.5]
    assert ran["limits"][:9] == [1, 1.5, 2, 2, 2, 2, 2, 2, 2]
    zclip = gclip("show", "zclip(max_norm=none)", "--json").json["example"]
    assert zclip["shortened"] == {"warmup": {"was": 25, "is": 3}}
    assert zclip["left"][5] == pytest.approx(2.490052, abs=1e-6)
    said = gclip("show", "zclip(max_norm=none)").out
    assert "Warm-up shortened for the example: warmup=3 instead of 25." in said
    assert " 2.49 " in said


def test_settings_and_norms(gclip: Command) -> None:
    answer = gclip("show", "norm(max_norm=0.5)", "--norms", "1,2,0.25")
    assert "here: norm(max_norm=0.5)" in answer.out
    assert "(not 1)" in answer.out
    left = next(line for line in answer.out.splitlines() if line.startswith("left"))
    assert left.split() == ["left", "0.5", "0.5", "0.25"]
    factor = next(line for line in answer.out.splitlines() if line.startswith("factor"))
    assert factor.split() == ["factor", "0.5", "0.25", "–"]
    found = gclip("show", "norm(max_norm=0.5)", "--norms", "1,2,0.25", "--json").json
    assert found["spelling"] == "norm(max_norm=0.5)"
    assert found["settings"]["max_norm"] == 0.5
    assert found["name"] == "norm"
    assert found["example"]["left"] == [0.5, 0.5, 0.25]
    assert found["example"]["limits"] == [0.5, 0.5, 0.5]


def test_skipped_steps_schedules_and_nan(gclip: Command) -> None:
    assert "skip" in gclip("show", "ratio_skip").out.partition("step     ")[2]
    scheduled = gclip("show", "norm(max_norm=linear(4, 1))", "--norms", "9,9,9,9", "--json").json
    assert scheduled["example"]["limits"] == [4, 3, 2, 1]
    ran = example(library.parse("percentile(p=50)"), [1.0, math.nan, 3.0])
    assert ran.left[2] == 2.0  # the median of 1 and 3


def test_alias_plugin_and_chain(gclip: Command, tmp_path: Path) -> None:
    assert gclip("show", "autoclip").out.startswith("percentile = autoclip · past norms\n")
    (tmp_path / "mine.py").write_text(
        '''
from dataclasses import dataclass
import gclip

@gclip.register("fortieth")
@dataclass(frozen=True, kw_only=True)
class Fortieth(gclip.Strategy):
    """A 40th."""
    def limit(self, seen, memory):
        return seen.norm / 40
'''
    )
    shown = gclip("show", "fortieth", "--plugin", "mine.py").out
    assert "A 40th." in shown
    assert "0.025" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["zclp"], "did you mean 'zclip'?"),
        (["norm(max=1)"], "max_norm"),
        (["chain(norm, value)"], "not the chain"),
        (["norm", "--norms", "1,two"], "1,2,5"),
        (["norm", "--norms", ""], "1,2,5"),
        (["norm", "--norms", "1,-2"], "at least 0"),
        (["mine", "--plugin", "nowhere.py"], "nowhere.py"),
    ],
)
def test_wrong_input(gclip: Command, arguments: list[str], said: str) -> None:
    answer = gclip("show", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_docstrings_are_wrapped_but_blocks_are_not() -> None:
    body = "One\ntwo ``three``.\n\nAs in::\n\n    a  =  b\n      c\n\n" + "word " * 40
    lines = list(wrapped(body, 30))
    assert lines[:6] == ["One two `three`.", "", "As in::", "", "    a  =  b", "      c"]
    assert max(map(len, lines)) <= 30


def test_a_problem(gclip: Command) -> None:
    answer = gclip("show", "images(size=9)")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[:2] == ["images · problem", "here: images(size=9)"]
    assert "metric: accuracy, higher is better, from 0.0 % to 100.0 %, diverged: that of" in (
        answer.out
    )
    assert "defaults: lenet, adam lr 0.001, batch 32, 10 epochs" in lines
    assert any(line.split()[:4] == ["size", "9", "≥", "1"] for line in lines)
    assert any(line.split()[:5] == ["channels", "3", "1", "|", "3"] for line in lines)
    assert lines[-1] == 'gclip compare --task "images(size=9)" -s none -s norm'
    found = gclip("show", "problem:digits", "--json").json
    assert (found["kind"], found["spelling"], found["own_models"]) == ("problem", "digits", False)


def test_a_model(gclip: Command) -> None:
    answer = gclip("show", "mlp(depth=3)")
    lines = answer.out.splitlines()
    assert lines[:2] == ["mlp · model", "here: mlp(depth=3)"]
    assert "inputs: features, sequences, images" in lines
    assert any(line.split() == ["depth", "3", "int"] for line in lines)
    assert any(line.split() == ["(not", "2)"] for line in lines)
    found = gclip("show", "model:vit", "--json").json
    assert (found["kind"], found["inputs"]) == ("model", ["sequences", "images"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mlp(deep=3)"], "unknown setting 'deep' of the model mlp; did you mean 'depth'"),
        (["digits(size=3)"], "digits: unknown field 'size'"),
        (["mlp", "--norms", "1,2"], "--norms is for strategies, and mlp is a model"),
        (["model:norm"], "unknown model 'norm'"),
    ],
)
def test_wrong_problems_and_models(gclip: Command, arguments: list[str], said: str) -> None:
    answer = gclip("show", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
