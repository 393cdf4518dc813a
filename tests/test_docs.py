"""Every page of docs/ does what it says: its Python, its commands and its files, as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
from matplotlib import pyplot

import gclip
from gclip.cli import main
from tests.snippets import ROOT, blocks, commands, lacking, run_page, small, unrendered, words

PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
NOISY = ("in-your-loop.md",)  # other libraries warn as they like
ELSEWHERE = ("study create", "study work", "study run claims")
"""Commands that need a database server, which `tests/tuning` runs on PostgreSQL, and one that
trains for minutes: `tests/studies/test_claims.py` has a small version."""


def cannot_run(command: str) -> bool:
    return lacking(command) or any(command.startswith(f"gclip {each}") for each in ELSEWHERE)


def taken_for_granted() -> dict[str, Any]:
    """What a user's program has before the snippets of a page."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    return {
        "gclip": gclip,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "batches": [(torch.randn(16, 4), torch.randint(3, (16,))) for _ in range(30)],
        "loss_of": torch.nn.functional.cross_entropy,
    }


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=pytest.mark.filterwarnings("ignore") if p in NOISY else ())
        for p in PAGES
    ],
)
def test_a_page_runs_as_it_stands(
    page: str, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(mpl.rcParams, "backend", "Agg")
    names = taken_for_granted()
    if page != "figures.md":
        unrendered(monkeypatch)
    try:
        done = run_page(ROOT / "docs" / page, names, small, cannot_run)
    finally:
        pyplot.close("all")
    shown = [
        c for b in blocks(ROOT / "docs" / page) if b.language == "sh" for c in commands(b.text)
    ]
    assert done == [command for command in shown if not cannot_run(command)]
    CHECKED.get(page, lambda names, small, out: None)(names, small, capsys.readouterr().out)


def survey(names: dict[str, Any], folder: Path, out: str) -> None:
    assert (folder / "survey.svg").read_bytes().startswith(b"<?xml")
    assert isinstance(names["clipper"], gclip.Clipper)


def python(names: dict[str, Any], folder: Path, out: str) -> None:
    assert set(names["found"].table["strategy"]) == {"none", "norm", "agc(clip_factor=0.02)"}
    assert set(names["runs"]["key"]) == set(names["found"].keys)
    assert {path.name for path in folder.glob("*.png")} == {"page.png"}
    assert (folder / "figures" / "norms.svg").exists()


def writing(names: dict[str, Any], folder: Path, out: str) -> None:
    # A mean of 1 stays there, whatever is cut to it; 0.5 is within it.
    assert names["limits"][:, 0].tolist() == [float("inf"), 1.0, 1.0]
    assert names["left"][:, 0].tolist() == [1.0, 1.0, 0.5]
    for name in ("mine", "rms_cut"):
        assert re.search(rf"^{name}: \d+ kept, 0 broken", out, re.MULTILINE)
    assert "clipping_and_accuracy.png" in out
    assert "Does it help to leave the first steps alone?" in out


def explosion(names: dict[str, Any], folder: Path, out: str) -> None:
    assert set(names["layers"]["strategy"]) == {"none", "agc"}
    assert names["record"].before.shape == (30, 2)
    assert out.count("layers: gradients ") == 2  # of the command, and of the loop
    assert "layers, learning_curves" in out


def problems(names: dict[str, Any], folder: Path, out: str) -> None:
    for name in ("echo", "waves", "gru"):
        assert re.search(rf"^{name}: \d+ kept, 0 broken", out, re.MULTILINE), name
    assert "chase: 3 kept, 0 broken" in out
    found = names["found"]
    assert not found.failed
    assert (found.metric.name, found.metric.better) == ("squared error", "lower")
    assert "players(critic=value, forger=norm)" in " ".join(out.split())


def doctor(names: dict[str, Any], folder: Path, out: str) -> None:
    page = (ROOT / "docs" / "doctor.md").read_text()
    said = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert said is not None
    shown = " ".join(re.sub(r"\(train.py:\d+\)", "(…)", said[1]).split())
    assert shown in " ".join(re.sub(r"\(\S+:\d+\)", "(…)", out).split())
    assert set(names["found"].codes) == {"always"}
    assert names["limiter"] < 0.1
    codes = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    sources = [path.read_text() for path in (ROOT / "gclip" / "doctor").glob("*.py")]
    assert codes == {code for s in sources for code in re.findall(r'\bcode="([a-z-]+)"', s)}


def in_your_loop(names: dict[str, Any], folder: Path, out: str) -> None:
    assert len(names["log"]._record) == 30
    assert len(re.findall(r"^\d+0 [\d.]+ [\d.]+$", out, re.MULTILINE)) == 3
    if "Classifier" in names:
        assert len(names["clipping"].handle.record) == 30
    if "accelerator" in names:
        assert len(names["handle"].record) == len(names["clipper"].record) == 15


def real_images(names: dict[str, Any], folder: Path, out: str) -> None:
    # The command whose time is quoted makes as many runs as are quoted.
    page = ROOT / "docs" / "real-images.md"
    shown = [c for b in blocks(page) if b.language == "sh" for c in commands(b.text)]
    [quoted] = [each for each in shown if each.startswith("gclip compare --task cifar10")]
    assert int(re.findall(r"--seeds (\d+)", quoted)[0]) * words(quoted).count("-s") == 10
    assert "the first command, ten runs, took" in page.read_text()


CHECKED = {
    "doctor.md": doctor,
    "explosion.md": explosion,
    "in-your-loop.md": in_your_loop,
    "survey.md": survey,
    "python.md": python,
    "writing-your-own.md": writing,
    "problems.md": problems,
    "real-images.md": real_images,
}


@pytest.mark.parametrize("page", PAGES)
def test_options_of_commands_that_need_a_server_exist(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(ROOT / "docs" / page):
        for command in re.findall(r"gclip study (?:create|work)[^'\"`]*", block.text):
            group, verb, *rest = words(command.replace("\\\n", " "))
            assert main([group, verb, "--help"]) == 0
            said = capsys.readouterr().out
            for option in (word for word in rest if word.startswith("-")):
                assert re.search(rf"(?<!\S){option}\b", said), f"{command}: no {option}"


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


__all__ = ["small"]
