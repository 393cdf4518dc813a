"""The README's code does what the README says, as written there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import gclip
from gclip.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(after: str) -> str:
    """The first Python block that follows the text `after`."""
    found = re.search(r"```python\n(.*?)```", README[README.index(after) :], re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "my_strategies.py"
    file.write_text(block("<!-- my_strategies.py -->"))
    return file


def test_your_own_strategy_in_15_lines(plugin):
    code = [line for line in plugin.read_text().splitlines() if line.strip()]
    body = code[code.index('@gclip.register("mine")') :]
    assert len(body) <= 15
    assert gclip.load_plugins(plugin) == ("mine",)
    # running mean of the clipped norms: 1; then 1.5 of it; then of 0.95·1 + 0.05·1.5 …
    limits, clipped = gclip.simulate(gclip.create("mine"), [1.0, 4.0, 4.0])
    assert limits[0].item() == float("inf")
    assert limits[1:, 0].tolist() == pytest.approx([1.5, 1.5 * (0.95 + 0.05 * 1.5)])
    assert clipped[1:, 0].tolist() == pytest.approx(limits[1:, 0].tolist())


def test_comparing_it_from_a_file_outside_the_repository(plugin, tmp_path, capsys):
    arguments = ["compare", "--plugin", str(plugin), "-s", "mine", "-s", "norm", "--seeds", "2",
                 "--epochs", "1", "--fraction", "0.1", "--workers", "1", "--no-figures",
                 "--store", str(tmp_path / "runs")]  # fmt: skip
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "mine" in out
    assert "too few seeds to tell" in out
    plugin.write_text(plugin.read_text().replace("0.95", "0.9"))
    assert main(arguments) == 0
    assert "4 runs: 2 read from" in capsys.readouterr().out  # only the edited one's runs again


def test_in_your_own_training_loop(capsys):
    torch.manual_seed(0)
    model = torch.nn.Sequential()
    model.add_module("body", torch.nn.Linear(4, 8))
    model.add_module("fc", torch.nn.Linear(8, 3))
    names = {
        "model": model,
        "loader": [(torch.randn(16, 4), torch.randint(3, (16,))) for _ in range(5)],
        "loss_fn": torch.nn.functional.cross_entropy,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    exec(compile(block("In your own training loop"), "README.md", "exec"), names)
    assert len(names["clipper"].record) == 5
    assert "of 5 steps clipped" in capsys.readouterr().out


def test_every_command_shown_exists(capsys):
    for command in sorted(set(re.findall(r"^gclip (\w+)", README, re.MULTILINE))):
        assert main([command, "--help"]) == 0
        assert "gclip" in capsys.readouterr().out
