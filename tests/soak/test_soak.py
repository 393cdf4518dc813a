"""Nothing grows with steps, runs and trials: living tensors and open files, counted.

`tests/drills/test_soak.py` does the same for as long as a training, and looks at memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gclip.results import Results, Store
from gclip.training import RunConfig, load_dataset, train
from tests.soak import clipping, measured


@pytest.fixture(autouse=True, scope="module")
def counting() -> Iterator[None]:
    with measured.counting():
        yield


@pytest.mark.parametrize("name", clipping.NAMES)
def test_steps(name: str) -> None:
    work = clipping.steps(clipping.short(name))
    for _ in range(70):  # windows have filled by then
        next(work)
    before = measured.tensors(), measured.files()
    for _ in range(50):
        next(work)
    assert (measured.tensors(), measured.files()) == before


def test_a_record_holds_numbers_alone() -> None:
    """One row of six numbers a step, in one tensor for many steps."""
    work = clipping.steps("norm", record=True)
    for _ in range(128):
        next(work)
    before = measured.tensors()
    for _ in range(256):
        next(work)
    assert measured.tensors() <= before + 4


def test_runs(tmp_path: Path) -> None:
    """Trained, stored and read again, in one process."""
    digits = load_dataset("digits")
    store = Store(tmp_path / "runs", create=True)
    seen: list[Any] = []
    for seed in range(5):
        config = RunConfig(strategy="zclip", seed=seed, epochs=1, fraction=0.1, batch_size=64)
        store.save(train(config, dataset=digits, device="cpu", checkpoint=tmp_path / f"{seed}"))
        assert len(Results.read(Store(store.path)).runs) == seed + 1
        seen.append((measured.tensors(), measured.files()))
    assert seen[-1] == seen[-2] == seen[-3]
