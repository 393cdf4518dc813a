"""What drills share: a process that has loaded torch, and starts those that are to be killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.drills.processes import Loaded


@pytest.fixture(scope="session")
def loaded() -> Iterator[Loaded]:
    """What starts processes that are to be killed."""
    made = Loaded()
    yield made
    made.close()
