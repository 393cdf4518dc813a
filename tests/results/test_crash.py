"""The store under ``kill -9``, several processes at once, and a disk that takes no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("crash_child.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_run_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **threads},
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["stored"] > 20  # writers got somewhere …
    assert seen["orphans"] > 5  # … and were really caught in the middle
    assert seen["points"] > 25
    assert seen["runs"] == 12
    assert "cannot store run" in seen["message"]
    assert "File too large" in seen["message"]
    assert seen["kept"]
    assert seen["clean"]
