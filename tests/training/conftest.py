"""Images for the tests: the embedded digits, and a handful written as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gclip.training import Dataset, load_dataset

CLASSES = ("cat", "dog")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GCLIP_CACHE", str(folder))
    return folder


@pytest.fixture
def pixels() -> dict[str, np.ndarray]:
    """The images that `class_folders` holds, by their path in it."""
    random = np.random.RandomState(0)
    return {
        f"{part}/{name}/{number}.png": random.randint(0, 256, (32, 32, 3), dtype=np.uint8)
        for part, count in (("train", 3), ("test", 2))
        for name in CLASSES
        for number in range(count)
    }


@pytest.fixture
def class_folders(tmp_path: Path, pixels: dict[str, np.ndarray]) -> Path:
    from PIL import Image

    root = tmp_path / "images"
    for path, values in pixels.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / path)
    return root
