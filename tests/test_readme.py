"""The README's code and commands do what the README says, as written there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import gclip
from gclip.cli import main
from tests.snippets import ROOT, blocks, commands, run_page, small, unrendered, words

PAGE = ROOT / "README.md"
README = PAGE.read_text()
PLUGIN = next(block.text for block in blocks(PAGE) if block.file == "my_strategies.py")


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "my_strategies.py"
    file.write_text(PLUGIN)
    return file


def test_your_own_strategy_in_15_lines(plugin: Path) -> None:
    code = [line for line in plugin.read_text().splitlines() if line.strip()]
    body = code[code.index('@gclip.register("mine")') :]
    assert len(body) <= 15
    assert gclip.load_plugins(plugin) == ("mine",)
    # running mean of the clipped norms: 2; still 2 after a larger one; 0.95·2 + 0.05·1 …
    limits, clipped = gclip.simulate(gclip.create("mine"), [2.0, 4.0, 1.0, 9.0])
    assert limits[0].item() == float("inf")
    assert limits[1:, 0].tolist() == pytest.approx([2.0, 2.0, 1.95])
    assert clipped[:, 0].tolist() == pytest.approx([2.0, 2.0, 1.0, 1.95])
    # a unit that is dead at first is not silenced by it
    limits, clipped = gclip.simulate(gclip.create("mine"), [0.0, 0.0, 3.0, 3.0])
    assert clipped[:, 0].tolist() == [0.0, 0.0, 3.0, 3.0]


def test_your_own_problem_in_20_lines(tmp_path: Path) -> None:
    file = tmp_path / "my_problem.py"
    file.write_text(next(block.text for block in blocks(PAGE) if block.file == file.name))
    code = [line for line in file.read_text().splitlines() if line.strip()]
    assert len(code[code.index('@gclip.register_problem("echo")') :]) <= 20
    assert gclip.load_plugins(file) == ("echo",)
    found = gclip.compare(
        "norm", [0], problem="echo(lag=1)", epochs=1, store=tmp_path / "runs", device="cpu",
        progress=False,
    )  # fmt: skip
    [run] = found.outcomes
    assert run.metric.name == "squared error"
    assert run.score < 0.9  # guessing the mean, 0, scores 1


@pytest.mark.parametrize("strategy", ["mine", "mine(scope=unit)"])
def test_it_trains_where_no_clipping_does_not(plugin: Path, tmp_path: Path, strategy: str) -> None:
    """What the README claims of it, on one seed in the demo's setting."""
    gclip.load_plugins(plugin)
    found = gclip.compare(
        ["none", strategy], [0], store=tmp_path / "runs", workers=1, device="cpu", fleet="off",
        progress=False,
    ).runs.set_index("strategy")["accuracy"]  # fmt: skip
    assert found["none"] < 0.3
    assert found[strategy] > 0.85


def test_an_edit_makes_only_its_own_runs_again(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", "--plugin", str(plugin), "-s", "mine", "-s", "norm", "--seeds", "2",
                 "--epochs", "1", "--fraction", "0.1", "--workers", "1", "--no-figures",
                 "--store", str(tmp_path / "runs")]  # fmt: skip
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "mine" in out
    assert "no difference can be shown" in " ".join(out.split())
    plugin.write_text(plugin.read_text().replace("0.95", "0.9"))
    assert main(arguments) == 0
    assert "4 runs: 2 read from" in capsys.readouterr().out


def test_all_of_it_runs_as_it_stands(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unrendered(monkeypatch)
    torch.manual_seed(0)
    model = torch.nn.Sequential()
    model.add_module("body", torch.nn.Linear(4, 8))
    model.add_module("fc", torch.nn.Linear(8, 3))
    names: dict[str, Any] = {
        "model": model,
        "loader": [(torch.randn(16, 4), torch.randint(3, (16,))) for _ in range(5)],
        "loss_fn": torch.nn.functional.cross_entropy,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    done = run_page(PAGE, names, small)
    assert len(done) >= 12
    out = capsys.readouterr().out
    assert len(names["clipper"].record) == 5
    assert "of 5 steps clipped" in out
    for name in ("mine", "echo"):
        assert re.search(rf"^{name}: \d+ kept, 0 broken", out, re.MULTILINE)
    assert set(names["found"].table["strategy"]) == {"none", "norm", "agc(clip_factor=0.02)"}


def test_shell_lines_are_commands_of_gclip_or_of_installing_it() -> None:
    for block in blocks(PAGE):
        lines = block.text.splitlines() if block.language == "sh" else []
        assert all(line.split()[0] in ("gclip", "pip", "make") for line in lines if line), lines


def test_the_wheel_that_is_named_is_the_one_that_is_built() -> None:
    page = (ROOT / "docs" / "start.md").read_text()
    assert f"pip install dist/gclip-{gclip.__version__}-py3-none-any.whl" in page


def test_commands_in_the_text_exist(capsys: pytest.CaptureFixture[str]) -> None:
    inline = re.findall(r"`(gclip [^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
    assert inline
    shown = [c for block in blocks(PAGE) if block.language == "sh" for c in commands(block.text)]
    for command in (*inline, *shown):
        called = words(command)
        verbs = called[: 2 if called[0] in ("study", "bench") else 1]
        assert main([*verbs, "--help"]) == 0, command
        said = capsys.readouterr().out
        for option in (word for word in called if word.startswith("-")):
            assert re.search(rf"(?<!\S){option}\b", said), f"{command}: no {option}"


__all__ = ["small"]
