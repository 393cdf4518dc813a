"""``gclip check``: the contract at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

Command = Any  # of conftest.py

PLUGIN = '''
from dataclasses import dataclass
from gclip import Strategy, register, tunable

@register("fine")
@dataclass(frozen=True, kw_only=True)
class Fine(Strategy):
    """Clip to a fixed norm."""

    max_norm: float = tunable(1.0, low=0.1, high=10.0, log=True, doc="largest norm")

    def limit(self, seen, memory):
        return self.max_norm

@register("mine", "also-mine")
@dataclass(frozen=True, kw_only=True)
class Mine(Fine):
    """Clip to the largest norm of all runs."""

    def limit(self, seen, memory):
        return seen.norm.max() * self.max_norm / 2
'''
QUICK = ("--only", "batched", "--only", "documented", "--only", "cuda")


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    (tmp_path / "my_strategies.py").write_text(PLUGIN)
    return "my_strategies.py"


def test_a_file_checks_all_that_it_registers(gclip: Command, plugin: str) -> None:
    answer = gclip("check", plugin, *QUICK)
    assert answer.code == 1
    assert "run 0 of 3 is left with" in answer.out
    assert "mine: 1 kept, 1 broken" in answer.out
    assert "fine: 2 kept, 0 broken" in answer.out
    assert answer.err == ""


def test_every_promise_of_a_strategy_of_a_file(gclip: Command, plugin: str) -> None:
    answer = gclip("check", plugin, "fine")
    assert answer.code == 0, answer.out
    assert "0 broken" in answer.out
    assert "mine" not in answer.out
    assert "another_process" in answer.out


def test_names_and_aliases(gclip: Command, plugin: str) -> None:
    answer = gclip("check", plugin, "also-mine", "autoclip", "--only", "documented", "--json")
    assert answer.code == 0
    assert answer.json == {
        "strategies": {
            name: [
                {
                    "promise": "documented",
                    "sentence": "every field says what it is, and its default is one that a study "
                    "may find",
                    "state": "ok",
                    "said": [],
                }
            ]
            for name in ("mine", "percentile")
        }
    }


def test_json_of_a_broken_promise(gclip: Command, plugin: str) -> None:
    answer = gclip("check", plugin, "mine", "--only", "batched", "--json")
    assert answer.code == 1
    (result,) = answer.json["strategies"]["mine"]
    assert result["state"] == "broken"
    assert result["said"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument"),
        (["nrom"], "unknown strategy, problem or model 'nrom'; did you mean 'norm'"),
        (["nowhere.py"], "there is no such file"),
        (["norm", "--only", "all"], "unknown promise 'all'"),
        (["norm", "--seed", "x"], "--seed"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    gclip: Command, arguments: list[str], said: str
) -> None:
    answer = gclip("check", *arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_help_has_examples(gclip: Command) -> None:
    answer = gclip("check", "--help")
    assert answer.code == 0
    for example in ("gclip check my_strategies.py", "gclip check norm agc --json"):
        assert example in answer.out
