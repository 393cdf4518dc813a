"""``gclip bench strategies``: what is measured, how it is judged, and where it is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gclip as library
from gclip.bench import strategies as measured
from gclip.describe import costs

Command = Any  # of conftest.py

ROWS = [
    {"case": "resnet18 agc", "strategy": "agc", "peer": "norm(scope=unit)", "speedup": 0.8,
     "cost": 1.25, "ours_us": 50.0, "peer_us": 40.0, "clipped": 1.0, "norms_only": True},
    {"case": "resnet18 zclip", "strategy": "zclip", "peer": "norm(scope=global)", "speedup": 0.5,
     "cost": 2.0, "ours_us": 80.0, "peer_us": 40.0, "clipped": 0.25, "norms_only": True},
    {"case": "resnet18 power", "strategy": "power", "peer": "norm(scope=element)", "speedup": 0.2,
     "cost": 5.0, "ours_us": 80.0, "peer_us": 40.0, "clipped": 1.0, "norms_only": False},
    {"case": "resnet18 odd", "strategy": "odd", "reason": "it cannot", "norms_only": True},
]  # fmt: skip


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The names asked for, in place of a measurement."""
    asked: list[tuple[str, ...]] = []

    def fake(chosen: tuple[str, ...], **_: object) -> list[dict[str, Any]]:
        asked.append(chosen)
        return [row for row in ROWS if not chosen or row["strategy"] in chosen]

    monkeypatch.setattr(measured, "rows", fake)
    return asked


def test_every_strategy_is_measured_beside_norm_of_its_scope_and_side() -> None:
    found = measured.rows(model="lenet", seconds=0, warm=1)
    assert [row["strategy"] for row in found] == list(library.names())
    for row in found:
        strategy = library.get(row["strategy"])()
        assert "reason" not in row, row
        assert row["cost"] == pytest.approx(row["ours_us"] / row["peer_us"])
        assert row["speedup"] == pytest.approx(1 / row["cost"])
        if strategy.side == "sample":
            assert row["peer"] == "none(side=sample)"
        else:
            side = ", side=update" if strategy.side == "update" else ""
            assert row["peer"] == f"norm(scope={strategy.scope}{side})"
    acting = {row["strategy"]: row["clipped"] for row in found}
    assert acting["none"] == 0
    assert acting["norm"] == acting["agc"] == acting["clippy"] == 1
    assert acting["ema_ratio"] > 0
    assert not any(row["norms_only"] for row in found if row["strategy"] in ("power", "clippy"))


def test_the_table_names_what_is_above_the_target(gclip: Command, rows: object) -> None:
    answer = gclip("bench", "strategies", "--seconds", "0")
    assert answer.code == 0
    assert "1.25×" in answer.out
    assert "it cannot" in answer.out
    assert "Above 1.5×, of those that look at norms alone: zclip." in answer.out
    assert max(map(len, answer.out.splitlines())) <= 100


def test_json(gclip: Command, rows: list[tuple[str, ...]]) -> None:
    found = gclip("bench", "strategies", "-s", "agc", "--json").json
    assert rows == [("agc",)]
    assert found["bench"] == "strategies"
    assert found["machine"]["torch"]
    assert found["rows"] == ROWS[:1]


def test_costs_are_written_and_added_to_on_the_same_machine(
    gclip: Command, rows: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strategies").mkdir()
    file = tmp_path / "strategies" / "costs.json"
    monkeypatch.setattr(costs, "costs_file", lambda: file)
    refused = gclip("bench", "strategies", "--write")
    assert refused.code == 2
    assert "checkout" in refused.err
    (tmp_path / "pyproject.toml").touch()
    assert gclip("bench", "strategies", "-s", "agc", "--write").code == 0
    assert gclip("bench", "strategies", "-s", "zclip", "--write").code == 0
    kept = json.loads(file.read_text())
    assert kept["costs"] == {
        "agc": {"cost": 1.25, "peer": "norm(scope=unit)", "idle": False},
        "zclip": {"cost": 2.0, "peer": "norm(scope=global)", "idle": False},
    }
    file.write_text(json.dumps({**kept, "machine": {"torch": "1.0"}}))
    refused = gclip("bench", "strategies", "-s", "agc", "--write")
    assert refused.code == 2
    assert "another machine" in refused.err
    assert gclip("bench", "strategies", "--write").code == 0
    assert set(json.loads(file.read_text())["costs"]) == {"agc", "zclip", "power"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-s", "agcc"], "did you mean 'agc'?"),
        (["--seconds", "-1"], "--seconds must be at least 0"),
        (["--write", "--plugin", "mine.py"], "leave --plugin out"),
    ],
)
def test_wrong_input(gclip: Command, arguments: list[str], said: str) -> None:
    answer = gclip("bench", "strategies", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
