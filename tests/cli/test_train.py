"""``gclip train``, ``gclip list`` and ``gclip bench``."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from gclip.cli.options import parse_seeds
from gclip.cli.setting import Setting
from gclip.results import Store

Command = Any  # of conftest.py
TINY = ("--fraction", "0.1", "--epochs", "1", "--batch-size", "64", "--device", "cpu")

PLUGIN = '''
from dataclasses import dataclass

import gclip


@gclip.register("mine", "my_own")
@dataclass(frozen=True, kw_only=True)
class Mine(gclip.Strategy):
    """Half of what was measured.

    Nobody (2031), arXiv:3101.00001.
    """

    factor: float = gclip.tunable(0.5, low=0.1, high=2.0, log=True)

    def limit(self, seen, memory):
        return self.factor * seen.norm
'''


def test_train_says_accuracy_clipping_and_where_it_is(gclip: Command, tmp_path: Path) -> None:
    answer = gclip("train", "-s", "norm(max_norm=0.1)", "--seed", "3", *TINY)
    assert (answer.code, answer.err) == (0, "")
    said, clipped, *defined, where = answer.out.splitlines()
    assert said.startswith("norm(max_norm=0.1) on digits, lenet, seed 3: ")
    assert "% test accuracy" in said
    found = gclip("train", "-s", "norm(max_norm=0.1)", "--seed", "3", *TINY, "--json").json
    limited = 100 * found["clipping"]["limited_rate"]
    verdict = found["clipping"]["verdict"]
    assert clipped.startswith(f"limited {limited:.1f} % of the steps: {verdict}")
    assert "shrank by more than 1 %" in " ".join(defined)
    assert where.startswith("stored in runs/")
    [key] = Store(tmp_path / "runs").keys()
    assert where.endswith(key)
    again = gclip("train", "-s", "norm(max_norm=0.1)", "--seed", "3", *TINY)
    assert again.out.splitlines() == [
        said,
        clipped,
        *defined,
        where.replace("stored in", "read from"),
    ]


def test_train_in_json_and_options_over_a_recipe(gclip: Command) -> None:
    answer = gclip("train", "--recipe", "tutorial", "--task", "digits", *TINY, "--json")
    assert answer.code == 0
    config = answer.json["config"]
    assert config["optimizer"] == "adam"
    assert config["normalize"] == "half"
    assert config["strategy"] in ("value", "value(clip_value=1)")
    assert (config["task"], config["batch_size"], config["epochs"]) == ("digits", 64, 1)
    assert answer.json["status"] == "finished"
    assert 0 <= answer.json["accuracy"] <= 1
    assert answer.json["clipping"]["verdict"]


def test_a_diverged_run_is_said_to_be_one(gclip: Command) -> None:
    answer = gclip("train", "--lr", "1e6", *TINY)
    assert answer.code == 0
    assert "diverged at step " in answer.out
    assert "10.0 % test accuracy" in " ".join(answer.out.split())


def test_ctrl_c_in_train_names_the_checkpoint(
    gclip: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import gclip.training as training

    def interrupted(*_: object, checkpoint: Path | None, **__: object) -> None:
        if isinstance(checkpoint, Path):
            checkpoint.write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    answer = gclip("train", "--checkpoint", "half.pt")
    assert answer.code == 130
    assert "half.pt" in answer.err
    assert "nothing of this run is kept" in gclip("train").err


def test_bench_prints_the_rows(gclip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"case": "norm on LeNet", "peer": "torch", "ours_us": 50.0, "speedup": 1.5}]
    for name in ("clip", "data"):
        fake = types.ModuleType(f"gclip.bench.{name}")
        fake.rows = lambda *_, **__: rows  # type: ignore[attr-defined]
        fake.CASES = ()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
        package = pytest.importorskip("gclip.bench")
        monkeypatch.setattr(package, name, fake, raising=False)
        arguments = ["bench", name] + (["--data", "."] if name == "data" else [])
        assert "1.50×" in gclip(*arguments).out
        answer = gclip(*arguments, "--json").json
        assert answer["bench"] == name
        assert answer["rows"] == rows
        assert answer["machine"]["torch"]


def test_seeds_are_a_count_or_a_list() -> None:
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("0,1,5") == (0, 1, 5)
    assert parse_seeds("5,") == (5,)


def test_what_is_not_said_is_the_tasks_default() -> None:
    assert Setting().config().optimizer == "sgd"
    cifar = Setting(task="cifar10").config()
    assert (cifar.optimizer, cifar.batch_size, cifar.augment) == ("adam", 128, True)
    assert Setting(task="cifar10", augment=False).config().augment is False
    assert Setting(optimizer="adam").config().momentum is None


@pytest.mark.parametrize("command", ["compare", "survey", "study run norm", "study report"])
def test_commands_of_many_runs_are_not_for_several_processes(
    command: str, gclip: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        answer = gclip(*command.split())
        assert (answer.code, answer.out) == (2, "")
        if rank == "1":
            assert answer.err == ""  # the first has said it
            continue
        assert "torchrun has started this command 2 times" in answer.err
        assert ("--workers 2" in answer.err) is (command != "survey")
        assert len(answer.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_one_process_may_be_started_by_torchrun_too(
    gclip: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert gclip("train", *TINY).code == 0


def test_watch_says_where_gradients_vanish_or_explode(gclip: Command, tmp_path: Path) -> None:
    watched = ("train", "-s", "norm(max_norm=0.1)", "--watch", "layer", *TINY)
    said = gclip(*watched).out.replace("\n", " ")
    found = gclip(*watched, "--json").json
    [profile] = found["layer_profiles"]
    assert found["layers"] == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert (profile["first"], profile["last"], profile["layers"]) == ("conv1", "fc3", 5)
    assert profile["ratio"] == profile["first_norm"] / profile["last_norm"]
    assert "layers: gradients " in said
    assert f"largest in {profile['largest']} ({profile['largest_norm']:.3g})" in said
    plain = gclip("train", "-s", "norm(max_norm=0.1)", *TINY)
    assert "layers:" not in plain.out
    assert "layer_profiles" not in gclip("train", "-s", "norm(max_norm=0.1)", *TINY, "--json").json
