"""`gclip.compare` from Python: what it takes, what it gives, and how that shows itself."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import gclip
from gclip.errors import UsageError
from gclip.execution import Event
from gclip.execution.compare import paired_configs
from gclip.training import RunConfig

TINY: dict[str, Any] = {"fraction": 0.1, "epochs": 1, "batch_size": 64}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> gclip.Comparison:
    store = tmp_path_factory.mktemp("comparison") / "runs"
    return gclip.compare(
        ["none", gclip.create("norm", max_norm=0.5)], seeds=2, store=store, workers=1,
        device="cpu", progress=False, **TINY,
    )  # fmt: skip


def test_importing_gclip_stays_light() -> None:
    code = (
        "import sys, gclip; assert 'compare' in dir(gclip) and 'figures' in dir(gclip); "
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_count_of_seeds_strategies_of_each_kind_and_settings(found: gclip.Comparison) -> None:
    runs = found.runs
    assert sorted(zip(runs["strategy"], runs["seed"], strict=True)) == [
        ("none", 0), ("none", 1), ("norm(max_norm=0.5)", 0), ("norm(max_norm=0.5)", 1),
    ]  # fmt: skip
    for name, value in TINY.items():
        assert set(runs[name]) == {value}
    assert found.baseline == "none"
    assert list(found.table["n"]) == [2, 2]


def test_the_frames_are_those_of_the_store(found: gclip.Comparison) -> None:
    stored = gclip.results.load(found.store.path)
    pd.testing.assert_frame_equal(found.runs, stored)
    curves, steps = found.curves(), found.steps()
    assert set(curves["key"]) == set(steps["key"]) == set(found.keys) == set(stored["key"])
    assert list(curves["epoch"]) == [1, 1, 1, 1]
    last = curves.set_index("key")["accuracy"]
    assert dict(last) == dict(stored.set_index("key")["accuracy"])
    # one row a step, and the norms that the clip rate was counted from
    counts = steps.groupby("key")["step"].agg(["size", "max"])
    assert (counts["size"] == counts["max"] + 1).all()
    rate = steps.groupby("key")["any_clipped"].mean()
    pd.testing.assert_series_equal(
        rate.sort_index(), stored.set_index("key")["clip_rate"].sort_index(), check_names=False
    )
    assert len(found.steps(points=1)) == 4


def test_it_prints_as_the_table_of_the_command(found: gclip.Comparison) -> None:
    text = str(found)
    assert text == repr(found)
    for row in found.table.to_dict("records"):
        line = next(line for line in text.splitlines() if line.startswith(row["strategy"][:8]))
        assert f"{100 * row['accuracy']:.1f}" in line
    assert "vs none" in text
    assert "95 % interval" in text


def test_a_notebook_shows_every_column(found: gclip.Comparison) -> None:
    shown = found._repr_html_()
    rows = re.findall(r"<tr>(.*?)</tr>", shown)
    heads = [html.unescape(each) for each in re.findall(r"<th>(.*?)</th>", rows[0])]
    cells = [[html.unescape(c) for c in re.findall(r"<td>(.*?)</td>", row)] for row in rows[1:]]
    assert heads[:2] == ["strategy", "test accuracy"]
    assert all(len(each) == len(heads) for each in cells)
    assert [each[0] for each in cells] == list(found.table["strategy"])
    for each, accuracy in zip(cells, found.table["accuracy"], strict=True):
        assert each[1].startswith(f"{100 * accuracy:.1f}")


def test_the_same_call_reads(found: gclip.Comparison) -> None:
    events: list[Event] = []
    again = gclip.compare(
        ["none", "norm(max_norm=0.5)"], [0, 1], store=found.store.path, workers=1, device="cpu",
        on_event=events.append, **TINY,
    )  # fmt: skip
    assert [event.kind for event in events] == ["cached"] * 4
    pd.testing.assert_frame_equal(again.table, found.table)


def test_how_far_it_is_is_said_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"seeds": 1, "store": tmp_path, "workers": 1, "device": "cpu", **TINY}
    gclip.compare("none", **one)
    said = capsys.readouterr()
    assert "1 of 1 run" in said.err
    assert said.out == ""
    gclip.compare("none", progress=False, **one)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategies": [3]}, "a strategy is a name, a spelling .* or an instance, but got 3"),
        ({"strategies": []}, "at least one strategy"),
        ({"seeds": 0}, "seeds must be a whole number from 1"),
        ({"learning_rate": 1}, "unknown setting 'learning_rate'"),
        ({"epoch": 1}, "unknown setting 'epoch'; did you mean 'epochs'"),
        ({"strategy": "norm"}, "unknown setting 'strategy'"),
        ({"task": "digit"}, "unknown task 'digit'; did you mean 'digits'"),
        ({"lr": -1}, "lr"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        gclip.compare(**{"strategies": ["none"], "store": tmp_path / "runs", **wrong})
    assert not (tmp_path / "runs").exists()


def test_a_task_brings_its_own_defaults() -> None:
    from gclip.execution.compare import _setting
    from gclip.training import task_defaults

    assert _setting(None, {"task": "cifar10"}) == task_defaults("cifar10")
    assert _setting(None, {"task": "cifar10", "epochs": 3}).optimizer == "adam"


PROGRAM = '''
import sys
from dataclasses import dataclass

import gclip

@gclip.register("local")
@dataclass(frozen=True, kw_only=True)
class Local(gclip.Strategy):
    """A constant."""
    def limit(self, seen, memory):
        return 0.25

common = dict(seeds=1, store=sys.argv[1], device="cpu", fraction=0.1, epochs=1, batch_size=64)
found = gclip.compare(["local", "none"], **common)
assert not found.failed, found
print(found.runs["status"].tolist())
try:
    gclip.compare(["local"], workers=2, **common)
except gclip.UsageError as error:
    print(error)
'''


def test_a_strategy_of_the_running_program_is_trained_in_it(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "runs"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ended, refused = done.stdout.splitlines()
    assert ended == "['finished', 'finished']"
    assert refused.startswith("local: written in a notebook or in the running program")
    assert "workers must be 1, but got 2" in refused


def test_workers_load_what_the_caller_has_loaded(tmp_path: Path) -> None:
    plugin = tmp_path / "elsewhere.py"
    plugin.write_text(PROGRAM.split("common")[0].replace('"local"', '"elsewhere"'))
    gclip.load_plugins(plugin)
    found = gclip.compare(
        ["elsewhere"], 2, store=tmp_path / "runs", workers=2, device="cpu", progress=False, **TINY
    )
    assert list(found.runs["status"]) == ["finished", "finished"]


PROBLEM = """
import sys
from dataclasses import dataclass

import gclip
import torch
from torch import nn


@gclip.register_problem("local-line")
@dataclass(frozen=True, kw_only=True)
class Line(gclip.Problem):
    metric = gclip.Metric("error", better="lower", worst=9.0, low=0)
    defaults = {"epochs": 1, "lr": 0.1}
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


@gclip.register_model("local-net")
def build(inputs, outputs, *, width: int = 4):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Tanh(), nn.LazyLinear(outputs))

"""
USES = """
common = dict(seeds=1, store=sys.argv[1], device="cpu", progress=False)
for problem in (Line, Line(slope=2), "local-line(slope=2)"):
    found = gclip.compare(["none", "norm"], problem=problem, **common)
    assert not found.failed, found
    print(found.runs["task"].unique().tolist(), found.metric.name)
tiny = dict(fraction=0.1, epochs=1, **common)
found = gclip.compare("norm", problem="digits", model=build, **tiny)
print(found.runs["model"].tolist(), found.runs["status"].tolist())
for arguments in (dict(problem=Line), dict(model="local-net(width=2)", **tiny)):
    try:
        gclip.compare("norm", workers=2, **{**common, **arguments})
    except gclip.UsageError as error:
        print(error)
"""


@pytest.mark.parametrize("has_file", [True, False])
def test_a_problem_and_a_model_of_the_running_program(tmp_path: Path, has_file: bool) -> None:
    """As in a notebook, which has no file: both are of ``__main__``."""
    script = tmp_path / "program.py"
    script.write_text(PROBLEM + USES)
    done = subprocess.run(
        [sys.executable, script if has_file else "-", tmp_path / "runs"],
        input=None if has_file else script.read_text(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, third, fourth, *refused = done.stdout.splitlines()
    assert first == "['local-line'] error"
    assert second == third == "['local-line(slope=2)'] error"
    assert fourth == "['local-net'] ['finished']"
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 5  # the third was only read
    for name, line in zip(("local-line", "local-net"), refused, strict=True):
        assert line.startswith(f"{name}: written in a notebook or in the running program")


def test_a_problem_is_named_once(tmp_path: Path) -> None:
    for wrong, said in (
        ({"problem": "digits", "task": "digits"}, "task and problem are the same, and both"),
        ({"problem": 3}, "a problem is meant by its spelling, its class or an instance"),
        ({"problem": "digit"}, "unknown task 'digit'; did you mean 'digits'"),
        ({"model": 3}, "a model is meant by its spelling or by the function"),
        ({"model": "lenett"}, "unknown model 'lenett'; did you mean 'lenet'"),
    ):
        with pytest.raises(UsageError, match=said):
            gclip.compare("none", 1, store=tmp_path / "runs", **wrong)


def test_a_chain_of_one_strategy_is_that_strategy() -> None:
    base = RunConfig()
    with pytest.raises(UsageError, match=r"norm and chain\(norm\) are the same strategy"):
        paired_configs(["norm", "none", "chain(norm(max_norm=1))"], [0], base)
    (alone,) = paired_configs(["chain(norm)"], [0], base)
    assert alone.strategy == "chain(norm)"  # as its stored runs are called
