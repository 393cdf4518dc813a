"""Studies survive ``kill -9``: a small drill; ``kill_drill.py`` has the large ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuning import kill_drill


@pytest.mark.drill
def test_on_one_machine(tmp_path: Path) -> None:
    said = kill_drill.on_one_machine(
        tmp_path, trials=5, worker_kills=1, coordinator_kills=1, seed=0
    )
    assert "5 of 5 complete" in said
    assert "none left running" in said
