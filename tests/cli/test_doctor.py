"""``gclip doctor``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

Command = Any  # of conftest.py

GOOD = """\
import torch
from torch.nn.utils import clip_grad_norm_
from helper import batch

model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

def step():
    optimizer.zero_grad()
    model(batch()).square().mean().backward()
    clip_grad_norm_(model.parameters(), 50.0)
    optimizer.step()
"""
BAD = GOOD.replace("    optimizer.step()\n", "").replace(
    "    clip_grad", "    optimizer.step()\n    clip_grad"
)
MADE = """\
import torch

def setup():
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().mean().backward()
        optimizer.step()

    return model, {"only": optimizer}, step

def as_mapping():
    model, optimizer, step = setup()
    return {"model": model, "optimizer": optimizer, "step": step}

def nothing():
    return 3
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = "import torch\ndef batch():\n    return torch.randn(8, 4)\n"
    for name, text in {"helper": helper, "good": GOOD, "bad": BAD, "made": MADE}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.delitem(sys.modules, "helper", raising=False)


def test_a_good_loop(gclip: Command) -> None:
    path = list(sys.path)
    answer = gclip("doctor", "good.py", "--steps", "6")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("6 steps of SGD watched: 1 note\n")
    assert "(good.py:11)" in answer.out
    assert sys.path == path


def test_exit_code_1_where_something_is_wrong(gclip: Command) -> None:
    answer = gclip("doctor", "bad.py")
    assert answer.code == 1
    assert "20 steps of SGD watched: 1 wrong" in answer.out
    assert "wrong: clip_grad_norm_ comes after optimizer.step()" in answer.out
    assert "(bad.py:12)" in answer.out


def test_json(gclip: Command) -> None:
    answer = gclip("doctor", "bad.py", "--json")
    assert answer.code == 1
    assert answer.json["training"] == "bad.py"
    assert answer.json["wrong"] is True
    assert [(f["code"], f["where"]) for f in answer.json["findings"]] == [
        ("after-step", "bad.py:12")
    ]


@pytest.mark.parametrize("function", ["setup", "as_mapping"])
def test_a_function_that_makes_the_training(gclip: Command, function: str) -> None:
    answer = gclip("doctor", f"made.py:{function}", "--json")
    assert answer.code == 0
    assert [f["code"] for f in answer.json["findings"]] == ["none"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.py"], "no such file: 'nowhere.py'"),
        (["made"], "no such file: 'made'"),
        (["made.py"], "made.py defines no model and no optimizer and no step"),
        (["made.py:setpu"], "no function 'setpu'; did you mean 'setup'?"),
        (["made.py:nothing"], "nothing() must return model, optimizer and step"),
        (["good.py", "--steps", "0"], "--steps must be at least 1, but got 0"),
        (["broken.py"], "broken.py fails: ZeroDivisionError: division by zero (line 1 of broken"),
        (["script.py"], "script.py ends the program (line 1 of script.py)"),
        (["late.py"], "step() of late.py fails: KeyError: 'x' (line 13 of late.py)"),
        (["number.py"], "step in number.py is no function"),
        (["wrong.py"], "the doctor's optimizer is a torch Optimizer"),
    ],
    ids=str,
)
def test_wrong_input(gclip: Command, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "script.py").write_text("raise SystemExit\n")
    (tmp_path / "late.py").write_text(GOOD + "    {}['x']\n")
    (tmp_path / "number.py").write_text(GOOD + "step = 3\n")
    (tmp_path / "wrong.py").write_text(GOOD + "optimizer = 3\n")
    answer = gclip("doctor", *arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    assert said in answer.err
