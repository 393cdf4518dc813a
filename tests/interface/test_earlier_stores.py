"""A store that version 0.1 wrote: every run is read as it was, and none is trained again."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

import gclip
from gclip.cli import main
from gclip.results import Store, load

SETTING = ["--fraction", "0.1", "--epochs", "1", "--device", "cpu", "--workers", "1"]
CHAINS = ["chain(value(clip_value=1), norm(max_norm=1))", "chain(power, norm)"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("store-0.1.zip")) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "runs"


def _told(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_are_read_with_their_values(store: Path) -> None:
    runs = load(Store(store)).set_index(["strategy", "batch_size"])
    assert len(runs) == 43
    compared = runs.xs(32, level="batch_size")
    assert set(compared.index) == {*gclip.names(), "chain(value, norm)", "chain(power, norm)"}
    assert (compared.status == "finished").all()
    none, sigma = compared.loc["none"], compared.loc["sigma_skip"]
    assert none.accuracy == sigma.accuracy


def test_no_strategy_trains_its_run_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every strategy's code counts as the code of then, wherever the files lie now."""
    chosen = [word for name in [*gclip.names(), *CHAINS] for word in ("-s", name)]
    told = _told(
        capsys, "compare", *chosen, *SETTING, "--seeds", "1", "--no-figures", "--store", str(store)
    )
    assert told["runs"]["trained"] == 0
    assert told["runs"]["read"] == len(gclip.names()) + len(CHAINS)


def test_a_study_goes_on_where_it_was(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in store.iterdir()}
    told = _told(
        capsys, "study", "run", "thresholds", "-s", "agc", "-s", "none", *SETTING,
        "--batch-size", "64", "--trials", "4", "--sampler", "random", "--store", str(store),
    )  # fmt: skip
    assert {path.name for path in store.iterdir()} - before <= {"figures"}
    best = {row["strategy"]: row for row in told["rows"]}
    assert best["agc"]["trials"] == best["none"]["trials"] == 4
    assert (best["agc"]["spelling"], best["agc"]["lr"]) == ("agc(clip_factor=0.1405)", 0.3918)
