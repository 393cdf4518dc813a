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


PROBLEM = '''
from dataclasses import dataclass
import gclip
from torch import nn
import torch

@gclip.register_problem("mine-too")
@dataclass(frozen=True, kw_only=True)
class Line(gclip.Problem):
    """Fit a line."""
    metric = gclip.Metric("error", better="lower", worst=9.0, low=0)
    slope: float = gclip.setting(3.0)

    def players(self, config):
        return nn.Linear(1, 1)

    def batches(self, state, epoch):
        for _ in range(3):
            yield torch.randn(8, 1, generator=state.generator("batches"))

    def losses(self, players, batch):
        yield "model", (players["model"](batch) - self.slope * batch).square().mean()

    def evaluate(self, players, state, split):
        return {"error": (players["model"].weight - self.slope).square().mean()}

@gclip.register_model("mine-too")
def build(inputs, outputs):
    """Linear."""
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))
'''


@pytest.fixture
def problems(tmp_path: Path) -> str:
    (tmp_path / "my_problems.py").write_text(PROBLEM)
    return "my_problems.py"


def test_problems_and_models_of_a_file(gclip: Command, problems: str) -> None:
    answer = gclip("check", problems)
    assert answer.code == 1
    assert "slope has no doc" in answer.out
    assert "mine-too: 14 kept, 1 broken, 3 do not apply" in answer.out
    assert "mine-too: 10 kept, 0 broken" in answer.out


def test_kinds_side_by_side(gclip: Command, problems: str) -> None:
    only = ("--only", "same_seed", "--only", "documented", "--json")
    found = gclip("check", problems, "norm", "problem:mine-too", "model:mine-too", *only)
    assert found.code == 1
    assert {k: list(v) for k, v in found.json.items()} == {
        "strategies": ["norm"], "problems": ["mine-too"], "models": ["mine-too"],
    }  # fmt: skip
    names = {k: [r["promise"] for r in v.popitem()[1]] for k, v in found.json.items()}
    both = ["documented", "same_seed"]
    assert names == {"strategies": ["documented"], "problems": both, "models": both}
    spelled = gclip("check", problems, "problem:mine-too(slope=2)", *only).json["problems"]
    assert list(spelled) == ["mine-too(slope=2)"]
    answer = gclip("check", problems, "mine-too")
    assert answer.code == 2
    assert "is a problem and a model; say which: problem:mine-too or model:mine-too" in answer.err
