"""Drills take minutes: they run with ``make drills``, and not with the suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drills.processes import Loaded

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("GCLIP_DRILLS") == "1":
        return
    skip = pytest.mark.skip(reason="a drill: make drills")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def loaded() -> Iterator[Loaded]:
    """What starts processes that are to be killed."""
    made = Loaded()
    yield made
    made.close()
