"""``gclip list``: families, filters, memory that was measured, and references."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import gclip as library
from gclip.describe import FAMILIES, describe, footprint
from gclip.training.models import build

Command = Any  # of conftest.py

PLUGIN = '''
from dataclasses import dataclass

import gclip


@gclip.register("mine", "my_own")
@dataclass(frozen=True, kw_only=True)
class Mine(gclip.Strategy):
    """Half of what was measured."""

    equation = "g ← g/2"
    paper = "Nobody 2031, arXiv:3101.00001"
    family = "odd ones"
    factor: float = gclip.tunable(0.5, low=0.1, high=2.0, log=True)

    def limit(self, seen, memory):
        return self.factor * seen.norm
'''


def test_list_shows_families_names_memory_and_paper(
    gclip: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    narrow = gclip("list", "--plugin", "mine.py")
    assert max(map(len, narrow.out.splitlines())) <= 100
    monkeypatch.setenv("COLUMNS", "160")
    answer = gclip("list", "--plugin", "mine.py")
    assert answer.code == 0
    for name in library.names():
        assert any(line.startswith(f"{name} ") for line in answer.out.splitlines()), name
    headings = [line.rpartition(" (")[0] for line in answer.out.splitlines() if _is_heading(line)]
    assert headings[-1] == "odd ones"
    assert headings[:-1] == [family for family in FAMILIES if family in headings]
    for said in ("= my_own", "factor=0.5", "Nobody 2031", "arXiv:3101.00001", "every norm so"):
        assert said in answer.out
    assert len(answer.out.splitlines()) < 5 * len(library.names())


def _is_heading(line: str) -> bool:
    return line.endswith(")") and line.rpartition(" (")[2][:-1].isdecimal()


def test_list_in_json_is_complete(gclip: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    rows = {
        row["name"]: row
        for row in gclip("list", "--plugin", "mine.py", "--json").json["strategies"]
    }
    assert set(rows) == set(library.names())
    mine = rows["mine"]
    assert mine["aliases"] == ["my_own"]
    assert mine["family"] == "odd ones"
    assert mine["summary"] == "Half of what was measured."
    assert (mine["equation"], mine["paper"]) == ("g ← g/2", "Nobody 2031, arXiv:3101.00001")
    assert (mine["reference"], mine["arxiv"]) == ("Nobody 2031", "3101.00001")
    assert mine["memory"] == {
        "words": "none", "grows": False,
        "numbers_on_lenet": 0, "numbers_a_parameter_on_lenet": 0.0,
    }  # fmt: skip
    factor = next(each for each in mine["parameters"] if each["name"] == "factor")
    assert (factor["low"], factor["high"], factor["log"]) == (0.1, 2.0, True)
    assert (factor["kind"], factor["shared"], factor["at_least"]) == ("tunable", False, 0.0)
    assert rows["agc"]["arxiv"] == "2102.06171"
    assert (rows["agc"]["scope"], rows["agc"]["scopes"][0]) == ("unit", "unit")
    assert rows["per_sample"]["side"] == rows["per_sample"]["sides"][0] == "sample"


def test_filters(gclip: Command) -> None:
    def names(*arguments: str) -> set[str]:
        return {row["name"] for row in gclip("list", *arguments, "--json").json["strategies"]}

    assert names("--family", "per example") == {
        name for name in library.names() if library.get(name).family == "per example"
    }
    assert {"clippy", "norm"} <= names("--side", "update")
    assert "power" not in names("--side", "update")
    assert names("--side", "sample", "--family", "relative to weights") == {"agc"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--side", "updat"], "unknown side 'updat'; did you mean 'update'?"),
        (["--family", "past norm"], "unknown family 'past norm'; did you mean 'past norms'?"),
        (["--family", "skips steps", "--side", "sample"], "no strategy of the family"),
    ],
)
def test_wrong_filters(gclip: Command, arguments: list[str], said: str) -> None:
    answer = gclip("list", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1


# -- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("norm", "none"),
        ("power", "none"),
        ("percentile", "every norm so far"),
        ("percentile(p=linear(10, 90))", "every norm so far"),
        ("percentile(window=100)", "ring of 100 norms a group"),
        ("ema_ratio", "1 number a group"),
        ("sigma_skip", "ring of 128 norms a group"),
        ("acclip", "1 number a parameter"),
        ("stable_spam", "6 numbers a tensor"),
    ],
)
def test_memory_in_words(spelling: str, words: str) -> None:
    assert footprint(library.parse(spelling)).words == words


@pytest.mark.parametrize("name", library.names())
def test_memory_is_what_a_clipper_keeps(name: str) -> None:
    strategy = library.get(name)()
    said = describe(type(strategy)).memory
    if strategy.side == "sample" or said.grows:
        return
    model = build("lenet")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = library.attach(optimizer, strategy, model=model)
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.randn(p.shape)
        optimizer.step()
    kept = sum(_count(part["memory"]) for part in handle.state_dict()["parts"])
    assert kept == said.on_lenet
    assert said.per_parameter == kept / 62_006
    assert (kept == 0) == (said.words == "none")


def _count(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_count, inner))


# -- equations and papers -------------------------------------------------------------------------


@pytest.mark.parametrize("name", library.names())
def test_every_strategy_has_an_equation_and_a_paper(name: str) -> None:
    found = describe(library.get(name))
    assert 0 < len(found.equation) <= 140
    assert any(sign in found.equation for sign in "←=≤<>"), found.equation
    assert 0 < len(found.reference) <= 40
    if found.arxiv is not None:
        assert re.fullmatch(r"\d{4}\.\d{5}", found.arxiv) or re.fullmatch(
            r"1[0-4]\d\d\.\d{4}", found.arxiv
        )
        assert f"arXiv:{found.arxiv}" in " ".join(found.doc.split()), "the docstring names another"


def test_a_plugin_may_say_neither(gclip: Command, tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text(
        PLUGIN.replace('"mine", "my_own"', '"silent"').replace("    equation", "    # equation")
        .replace("    paper", "    # paper")
    )  # fmt: skip
    listed = gclip("list", "--plugin", "silent.py", "--json").json["strategies"]
    [silent] = [row for row in listed if row["name"] == "silent"]
    assert (silent["equation"], silent["paper"]) == ("", "")
    assert (silent["reference"], silent["arxiv"]) == (None, None)
    shown = gclip("show", "silent").out
    assert "equation:" not in shown
    assert "paper:" not in shown


def test_problems(gclip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    answer = gclip("list", "--problems")
    assert (answer.code, answer.err) == (0, "")
    assert "accuracy, higher is" in answer.out
    assert "sgd lr 0.15," in answer.out
    found = {each["name"]: each for each in gclip("list", "--problems", "--json").json["problems"]}
    assert {"digits", "cifar10", "images", "torchvision"} <= set(found)
    size, channels = found["images"]["fields"]
    assert (size["name"], size["default"], size["at_least"]) == ("size", 32, 1)
    assert channels["choices"] == [1, 3]
    assert found["digits"]["metric"]["name"] == "accuracy"
    assert found["cifar10"]["defaults"] == {
        "model": "lenet", "optimizer": "adam", "lr": 0.001, "batch_size": 128, "epochs": 10,
    }  # fmt: skip


def test_models(gclip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    answer = gclip("list", "--models")
    assert (answer.code, answer.err) == (0, "")
    assert "width=128, depth=2, dropout=0" in answer.out
    both = gclip("list", "--models", "--problems", "--json").json
    assert set(both) == {"models", "problems"}
    found = {each["name"]: each for each in both["models"]}
    assert found["mlp"]["inputs"] == ["features", "sequences", "images"]
    assert found["lenet"]["inputs"] == ["images"]
    assert found["mlp"]["settings"][0] == {
        "name": "width", "default": 128, "types": ["int"], "choices": None,
    }  # fmt: skip


def test_families_are_of_strategies(gclip: Command) -> None:
    answer = gclip("list", "--problems", "--family", "past norms")
    assert answer.code == 2
    assert "--family and --side choose strategies" in answer.err
