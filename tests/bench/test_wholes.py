"""The benchmarks of stores, studies and growth, and all in one: their rows, not their times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gclip import results
from gclip.bench import every, growth, store, study
from gclip.bench.made_runs import STRATEGIES, make_store
from gclip.cli import main
from gclip.errors import UsageError
from gclip.results import Store
from gclip.training import RunConfig


def test_made_runs_are_runs_of_the_store_and_of_the_comparison(tmp_path: Path) -> None:
    keys = make_store(tmp_path / "runs", 12)
    frame = results.load(tmp_path / "runs")
    assert sorted(keys) == sorted(frame["key"]) == list(Store(tmp_path / "runs").keys())
    assert set(frame["strategy"]) == set(STRATEGIES)
    assert set(frame["status"]) == {"finished"}
    assert RunConfig(strategy="agc", seed=1).key in keys  # so that gclip compare reads them
    loaded = Store(tmp_path / "runs").load(keys[0])
    assert len(loaded.steps["norm"]) == loaded.clipping["steps"] == 230


def test_store_rows_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(store, "_process", lambda words, _: lambda: asked.append(list(words)))
    rows = store.rows((20, 5))
    assert [row["runs"] for row in rows] == [5] * 4 + [20] * 4
    assert [row["exponent"] is None for row in rows] == [True] * 4 + [False] * 4
    for row in rows:
        assert row["us_a_run"] == pytest.approx(1e6 * row["seconds"] / row["runs"])
    assert [words[0] for words in asked] == ["store", "compare", "figures"] * 2
    assert asked[1][asked[1].index("--seeds") + 1] == "1"  # 5 runs of 5 strategies
    with pytest.raises(UsageError, match="0"):
        store.rows((0,))


def test_study_rows_count_trials_and_say_who_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(commands: list[list[str]], folder: Path) -> dict[str, Any]:
        out = [json.dumps({"trials": 6 // len(commands), "seconds": 8.0}) for _ in commands]
        wall = 5.0 if "gclip" in commands[0] else 10.0
        return {"wall": wall, "peak_mib": 700.0, "out": out}

    monkeypatch.setattr(study, "_timed", timed)
    monkeypatch.setattr(study, "_trained", lambda _: {"trials": 6, "trained": 8.0})
    rows = study.rows((4,), trials=2, epochs=1)
    assert [row["speedup"] for row in rows] == [1.0, 2.0, 2.0, 2.0]
    assert [row["trials_a_minute"] for row in rows] == [72.0, 36.0, 36.0, 36.0]
    assert [row["outside"] for row in rows] == pytest.approx([0.2, 0.2, 0.6, 0.2])
    monkeypatch.setattr(study, "_trained", lambda _: {"trials": 5, "trained": 8.0})
    with pytest.raises(RuntimeError, match="gclip study run made 5 trials of 6"):
        study.rows((4,), trials=2, epochs=1)


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    import sys

    with pytest.raises(RuntimeError, match="failed: no such luck"):
        study._timed([[sys.executable, "-c", "raise SystemExit('no such luck')"]], tmp_path)
    found = study._timed([[sys.executable, "-c", "print(6 * 7)"]] * 2, tmp_path)
    assert found["out"] == ["42\n", "42\n"]
    assert found["peak_mib"] is None or 1 < found["peak_mib"] < 100


def test_growth_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert growth.exponent([2, 4, 8], [5.0, 5.0, 5.0]) == pytest.approx(0, abs=1e-9)
    assert growth.exponent([1, 10, 100], [3.0, 300.0, 30_000.0]) == pytest.approx(2)
    monkeypatch.setattr(growth, "_SIZES", {"tensors": (1, 2), "groups": (4, 8), "steps": (1, 2)})
    rows = growth.rows(["agc(clip_factor=0.5)"], seconds=0)
    assert [(row["grows"], row["from"], row["to"]) for row in rows] == [
        ("tensors", 1, 2), ("groups", 4, 8), ("steps", 1, 2),
    ]  # fmt: skip
    assert all(row["first_us"] > 0 and row["last_us"] > 0 for row in rows)


def test_all_go_on_after_one_that_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(seconds: float | None, progress: every.Progress) -> list[dict[str, Any]]:
        progress("a case")
        raise ValueError("no\nfile")

    def works(seconds: float | None, progress: every.Progress) -> list[dict[str, Any]]:
        return [{"case": "it", "seconds": seconds}]

    assert set(every.benches(None)) >= {"clip", "growth", "store", "study"}
    benches = {"one": breaks, "two": works, "three": "there is no GPU here"}
    monkeypatch.setattr(every, "benches", lambda data: benches)
    assert main(["bench", "all", "--seconds", "0.5", "--json"]) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert {"torch", "threads", "device", "gpu"} <= set(found["machine"])
    one, two, three = found["benches"]
    assert (one["bench"], one["failed"]) == ("one", "ValueError: no file")
    assert two["rows"] == [{"case": "it", "seconds": 0.5}]
    assert three["skipped"] == "there is no GPU here"
    assert "one: a case" in printed.err
    del benches["one"]
    assert main(["bench", "all"]) == 0
    assert "skipped: there is no GPU here" in capsys.readouterr().out
