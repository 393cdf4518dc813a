"""``gclip study report | show | export``, as typed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from gclip.cli import main
from tests.snippets import unrendered

TINY = ["--fraction", "0.1", "--epochs", "4", "--batch-size", "64"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("cli-report") / "runs")
    command = ["study", "run", "thresholds", "-s", "none", "-s", "agc", *TINY, "--trials", "8"]
    assert main([*command, "--sampler", "random", "--store", path, "--workers", "1"]) == 0
    return path


def test_report(
    store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unrendered(monkeypatch)
    monkeypatch.setenv("COLUMNS", "200")  # room enough for every heading on one line
    command = ["study", "report", "--store", store, "--seeds", "2", "--workers", "1"]
    assert main(command) == 0
    out = capsys.readouterr().out
    for word in ("vs default", "vs tuned none", "agc(", "the best of 8 trials of each study"):
        assert word in out
    for kind in ("png", "svg"):
        assert (Path(store) / "figures" / f"report.{kind}").is_file()
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["strategy"] for row in found["rows"]} == {"none", "agc"}
    assert (found["seeds"], found["split"]) == ([0, 1], "test")
    assert all(row["n"] == row["default_n"] == 2 for row in found["rows"])


def test_show(
    store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unrendered(monkeypatch)
    assert main(["study", "show", "thresholds-agc-digits", "--store", store]) == 0
    out = capsys.readouterr().out
    assert "thresholds-agc-digits: 8 trials, " in out
    assert "(fANOVA): " in out
    file = f"sqlite:///{store}/studies/thresholds-agc-digits.db"
    assert f"optuna-dashboard {file}" in out.replace("\n", "")
    assert (Path(store) / "figures" / "slices-thresholds-agc-digits.png").is_file()
    assert main(["study", "show", "thresholds-agc-digits", "--store", store, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["importances"]) == {"lr", "clip_factor"}
    assert len(found["best"]) == 5
    assert found["best"][0]["accuracy"] == max(row["accuracy"] for row in found["best"])
    assert main(["study", "show", "thresholds-none-digits", "--store", store]) == 0
    assert "two searched fields" in capsys.readouterr().out


def test_export(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "export", "thresholds-agc-digits", "--store", store]
    assert main(command) == 0
    printed = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [row["trial"] for row in rows] == [str(number) for number in range(8)]
    assert all(0.001 <= float(row["param_clip_factor"]) <= 1 for row in rows)
    file = tmp_path / "trials.csv"
    assert main([*command, "--csv", str(file)]) == 0
    assert file.read_text() == printed
    assert f"8 trials written to {file}" in capsys.readouterr().out.replace("\n", "")
    assert main([*command, "--csv", str(file)]) == 2
    assert "exists; give another file" in capsys.readouterr().err
    assert file.read_text() == printed


@pytest.mark.parametrize("command", ["report", "show", "export"])
def test_typed_wrong_is_one_sentence(
    command: str, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", command, "thresholds-agc-digit", "--store", store]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "there is no study 'thresholds-agc-digit'" in said
    assert "did you mean 'thresholds-agc-digits'" in said
    missing = tmp_path / "rums"
    assert main(["study", command, "x", "--store", str(missing)]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert not missing.exists()
