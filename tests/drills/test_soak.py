"""Nothing grows: memory, living tensors and open files over 100,000 steps of every strategy, and
over many runs and trials in one process.

Memory counts where a process has long settled: its allocator keeps some of what it once needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gclip.cli import main
from gclip.results import Results, Store
from gclip.training import RunConfig, load_dataset, train
from tests.soak import clipping, measured

STEPS = int(os.environ.get("GCLIP_SOAK_STEPS", "100000"))
pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux"),
]


@pytest.fixture(autouse=True)
def counting() -> Iterator[None]:
    with measured.counting():
        yield


@pytest.mark.parametrize("name", clipping.NAMES)
def test_steps(name: str, record_property: Any) -> None:
    """±1 % of memory from a tenth of the steps to the last."""
    work = clipping.steps(name)
    for _ in range(STEPS // 10):
        next(work)
    before, memory, files = measured.tensors(), measured.resident(), measured.files()
    for _ in range(STEPS - STEPS // 10):
        next(work)
    grown = measured.resident() / memory - 1
    record_property("grown", grown)
    print(f"{name}: {STEPS:,} steps, memory {grown:+.2%} of {memory / 2**20:.0f} MiB")
    assert measured.files() == files
    # It remembers every norm: a sorted part more whenever they have doubled a few times.
    most = before + (8 if name.startswith("percentile") else 0)
    assert before <= measured.tensors() <= most
    assert abs(grown) <= 0.01


def test_runs(tmp_path: Path) -> None:
    """200 runs, trained, stored and all read again, and a checkpoint of each."""
    digits = load_dataset("digits")
    store = Store(tmp_path / "runs", create=True)
    marks = []
    for seed in range(200):
        config = RunConfig(strategy="zclip", seed=seed, epochs=1, fraction=0.1, batch_size=64)
        store.save(train(config, dataset=digits, device="cpu", checkpoint=tmp_path / f"{seed}"))
        if seed % 20 == 19:
            assert len(Results.read(Store(store.path)).runs) == seed + 1
            marks.append((measured.tensors(), measured.files(), measured.resident()))
    (tensors, files, memory), last = marks[4], marks[-1]
    print(f"runs: memory {last[2] / memory - 1:+.2%} from the 100th to the 200th")
    assert last[:2] == (tensors, files)
    assert abs(last[2] / memory - 1) <= 0.01


def test_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies of 60 trials in all, one after another, and the reports of each."""
    monkeypatch.chdir(tmp_path)
    marks = []
    for number in range(12):
        words = ["study", "run", "thresholds", "-s", "norm", "--name", f"s{number}", "--trials",
                 "5",
                 "--epochs", "1", "--fraction", "0.1", "--device", "cpu", "--workers", "1",
                 "--fleet", "off", "--sampler", "random"]  # fmt: skip
        assert main(words) == 0
        assert main(["study", "show", f"s{number}"]) == 0
        marks.append((measured.files(), measured.resident()))
    (files, memory), last = marks[6], marks[-1]
    print(f"trials: memory {last[1] / memory - 1:+.2%} from the 7th to the 12th study")
    assert last[0] == files
    assert abs(last[1] / memory - 1) <= 0.02
