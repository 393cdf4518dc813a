"""What the tests of studies share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gclip.tuning import sqlite


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Without Optuna's own log lines."""
    with sqlite.quiet():
        yield
