"""A model from a file or a notebook: trained, compared, edited, and told apart by its code."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import gclip
from gclip.core import registry as strategies
from gclip.errors import UsageError
from gclip.execution.plugin_paths import plugins_of
from gclip.training import RunConfig, load_dataset, models, train
from gclip.training.fleet import train_fleet
from gclip.training.models import registry

FILE = '''
import torch
from torch import nn
import gclip


class Twice(nn.Module):
    """Its forward pass is its own, so that fleets map it."""

    def __init__(self, features, outputs):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))
        self.head = nn.Linear(features, outputs)

    def forward(self, x):
        return self.head(torch.flatten(x, 1) * self.scale)  # a comment


@gclip.register_model("twice")
def build(inputs, outputs, *, factor: int = 1):
    features = 1
    for size in inputs:
        features *= size
    return Twice(features, outputs)
'''
TINY = {"fraction": 0.1, "epochs": 1, "batch_size": 64}


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    models.names()
    before = dict(registry._MODELS._entries)
    yield
    registry._MODELS._entries.clear()
    registry._MODELS._entries.update(before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_models.py"
    path.write_text(FILE)
    return path


def test_a_file_is_loaded_and_reloaded_when_it_is_edited(file: Path) -> None:
    assert gclip.load_plugins(file) == ("twice",)
    assert gclip.build_model("twice(factor=2)", inputs=(4,), outputs=3)
    first = models.code_digest("twice")
    assert len(first) == 12
    assert models.code_digest("twice(factor=2)") == first
    assert [models.code_digest(name) for name in ("lenet", "vit(depth=2)")] == ["", ""]
    planned = RunConfig(model="twice", **TINY)
    assert planned.model_code == first
    file.write_text(FILE.replace("# a comment", "# another"))
    gclip.load_plugins(file)
    assert models.code_digest("twice") == first
    file.write_text(FILE.replace("* self.scale", "* 2"))
    gclip.load_plugins(file)
    assert models.code_digest("twice") != first
    with pytest.raises(
        UsageError, match=r"the code of the model twice is not what .*model_code=''"
    ):
        train(planned, device="cpu")
    assert planned.replace(seed=1).model_code == first
    assert planned.replace(model_code="").model_code == models.code_digest("twice")
    assert planned.replace(model="mlp").model_code == ""


def test_a_stored_config_reads_without_its_plugin(file: Path) -> None:
    gclip.load_plugins(file)
    planned = RunConfig(model="twice(factor=3)", **TINY)
    text, key = planned.to_json(), planned.key
    assert f'"model_code":"{planned.model_code}"' in text
    del registry._MODELS._entries["twice"]
    assert RunConfig.from_json(text).key == key
    with pytest.raises(UsageError, match="unknown model 'twice'"):
        RunConfig(model="twice")
    with pytest.raises(UsageError, match="unknown model 'twice'"):
        planned.replace(model_code="")


def test_a_file_with_strategies_and_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "both.py"
    file.write_text(
        FILE
        + """
from dataclasses import dataclass

@gclip.register("zzz-tenth")
@dataclass(frozen=True, kw_only=True)
class Tenth(gclip.Strategy):
    def limit(self, seen, memory):
        return 0.1 * seen.norm
"""
    )
    gclip.names()
    with monkeypatch.context() as patch:
        patch.setattr("gclip.core.registry._classes", dict(strategies._classes))
        assert gclip.load_plugins(file) == ("zzz-tenth", "twice")
    file = tmp_path / "nothing.py"
    file.write_text("x = 1\n")
    with pytest.raises(
        UsageError, match=r"registers no strategy, problem or model; .*register_mod"
    ):
        gclip.load_plugins(file)


def test_fleets_of_it_equal_its_runs(file: Path) -> None:
    gclip.load_plugins(file)
    digits = load_dataset("digits")
    base = RunConfig(model="twice", lr=0.01, **TINY)
    configs = [base, base.replace(strategy="norm", lr=0.02), base.replace(strategy="agc", seed=1)]
    for config, found in zip(
        configs, train_fleet(configs, dataset=digits, device="cpu"), strict=True
    ):
        alone = train(config, dataset=digits, device="cpu")
        assert found.config == alone.config
        for name, values in alone.steps.items():
            np.testing.assert_allclose(found.steps[name], values, rtol=2e-3, atol=1e-5)


def test_worker_processes_load_the_file_of_a_model(file: Path, tmp_path: Path) -> None:
    gclip.load_plugins(file)
    assert plugins_of([RunConfig(model="twice", strategy="norm")]) == ((str(file),), ())
    found = gclip.compare(
        ["none", "norm"], seeds=1, store=tmp_path / "runs", workers=2, device="cpu",
        progress=False, model="twice(factor=2)", lr=0.01, **TINY,
    )  # fmt: skip
    assert found.failed == ()
    assert set(found.runs["model"]) == {"twice(factor=2)"}
    assert set(found.runs["model_code"]) == {models.code_digest("twice")}


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The digest of the model `cell`, written where there is no file."""
    module = types.ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)

    def run(text: str) -> str:
        exec(compile(text, "<cell>", "exec"), vars(module))
        return models.code_digest("cell")

    return run


CELL = """
import gclip
from torch import nn
WIDTH = 3
def helper(n):
    return n + 1
class Base(nn.Module):
    slope = 1.0
class Net(Base):
    def __init__(self, outputs):
        super().__init__()
        self.head = nn.LazyLinear(helper(outputs))
    def forward(self, x):
        return self.head(x) * WIDTH
@gclip.register_model("cell")
def build(inputs, outputs, *, width: int = 4):
    return Net(outputs)
"""


def test_of_a_notebook_the_code_counts_that_the_function_names(cell: Callable[[str], str]) -> None:
    first = cell(CELL)
    assert cell(CELL) == first
    assert cell(CELL.replace("    return Net", "    # why\n    return Net")) == first
    for old, new in (
        ("n + 1", "n + 2"), ("WIDTH = 3", "WIDTH = 4"), ("slope = 1.0", "slope = 2.0"),
        ("width: int = 4", "width: int = 5"), (" * WIDTH", " + WIDTH"),
    ):  # fmt: skip
        assert cell(CELL.replace(old, new)) != first, new
    assert cell(CELL) == first
    config = RunConfig(model="cell", **TINY)
    assert plugins_of([config]) == ((), ("cell",))
    with pytest.raises(UsageError, match="cell: written in a notebook .* so workers must be 1"):
        gclip.compare(["none"], seeds=1, workers=2, model="cell", progress=False, **TINY)
