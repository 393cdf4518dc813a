"""What clipping adds to a step of training: its rows; the numbers are the machine's."""

from __future__ import annotations

import importlib.util
import json

import pytest

from gclip.bench import loop
from gclip.cli import main

KEYS = {"case", "peer", "overhead", "lower", "upper", "ours_ms", "peer_ms"}


def test_loop_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n in loop._FRAMEWORKS else found(n)
    )
    monkeypatch.setattr(loop, "STEPS", 2)
    command = ["bench", "loop", "--model", "mlp(width=4)", "--batch-size", "2", "--seconds", "0"]
    assert main([*command, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["bench"] == "loop"
    assert [row["case"] for row in measured["rows"]] == [
        "a loop with gclip.attach", "a loop with a gclip.Clipper",
    ]  # fmt: skip
    assert all(set(row) == KEYS and row["ours_ms"] > 0 for row in measured["rows"])
    assert main([*command]) == 0
    assert "overhead: median of our time" in " ".join(capsys.readouterr().out.split())
    assert main(["bench", "loop", "--batch-size", "0"]) == 2


def test_both_loops_clip_to_the_same_norm() -> None:
    """Or one would be measured beside something else."""
    weights = []
    for make in (loop._torchs, loop._attached, loop._stepped):
        task = loop._Task("mlp(width=4)", 8)
        task.optimizer.param_groups[0]["lr"] = 1.0
        make(task)()
        weights.append([p.detach().clone() for p in task.net.parameters()])
    for other in weights[1:]:
        assert all(
            bool(((a - b).abs() <= 1e-4 * a.abs().max()).all())
            for a, b in zip(weights[0], other, strict=True)
        )
