"""``gclip study``: begun, resumed, listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Command = Any  # of conftest.py
TINY = ("--fraction", "0.1", "--epochs", "1", "--batch-size", "64", "--device", "cpu")


def test_a_study_runs_resumes_and_is_listed(gclip: Command, tmp_path: Path) -> None:
    command = ("study", "run", "thresholds", "-s", "agc", *TINY, "--workers", "1")
    first = gclip(*command, "--trials", "2")
    assert first.code == 0
    assert "study thresholds-agc-digits: 2 trials" in first.out
    assert "% validation accuracy" in first.out
    assert '  gclip train -s "agc(clip_factor=' in first.out
    assert "gclip.Clipper(model" in first.out
    assert "looks better than it is" in first.out
    assert "gclip compare -s none -s" in first.out
    [use] = [line for line in first.out.splitlines() if line.startswith("  gclip train")]
    assert "--fraction 0.1 --batch-size 64 --epochs 1 --lr 0." in use
    # The same command again: the same, and no run more.
    runs = len(list((tmp_path / "runs").glob("*/config.json")))
    assert runs == 2
    assert gclip(*command, "--trials", "2").out == first.out
    assert len(list((tmp_path / "runs").glob("*/config.json"))) == 2
    # A larger total: only what is missing.
    more = gclip(*command, "--trials", "3", "--json").json
    assert more["trials"] == 3
    assert more["best"]["split"] == "validation"
    assert more["best"]["seed"] == 1000
    assert len(list((tmp_path / "runs").glob("*/config.json"))) == 3
    # Under other settings it is another study.
    other = gclip(*command, "--trials", "3", "--momentum", "0.5")
    assert other.code == 2
    assert "begun with momentum 0.9, not momentum 0.5" in other.err
    listed = gclip("study", "list")
    assert "thresholds: How large should the limit be?" in listed.out
    assert "thresholds-agc-digits" in listed.out
    assert gclip("study", "list", "--json").json["begun"][0]["trials"] == 3


def test_listing_creates_nothing(gclip: Command, tmp_path: Path) -> None:
    answer = gclip("study", "list", "--store", "nowhere")
    assert answer.code == 0
    assert "None was begun in nowhere." in answer.out
    assert list(tmp_path.iterdir()) == []
