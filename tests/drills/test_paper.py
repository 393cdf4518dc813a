"""``gclip paper train``, killed five times at random moments, ends with the same record."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from gclip.results.record import FRAMES, Record
from gclip.studies._paper_differences import differences
from tests.drills.processes import Loaded

pytestmark = pytest.mark.drill

KILLS = 5
PLAN = """
[[section]]
name = "digits"
question = "Which is the best?"
what = "A little of the digits."
study = "tuning"
strategies = ["none", "norm", "agc", "zclip", "ratio_skip"]
trials = 8
lr_range = [0.01, 1.0]
seeds = 5
run = { task = "digits", epochs = 1, fraction = 0.2 }

[[section]]
name = "rates"
question = "Which rates?"
what = "As digits."
study = "lr_ceiling"
strategies = ["none", "norm"]
run = { task = "digits", epochs = 1, fraction = 0.2 }
store = "digits"
"""
MOMENTS = ["seconds", "date", "attempt", "trial"]
"""What two trainings of the same differ in: a trial that was killed is made by another attempt."""


def test_killed_five_times(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)

    def command(store: str) -> tuple[str, ...]:
        return ("paper", "train", "--plan", "plan.toml", "--store", store, "--fleet", "off")

    began = time.monotonic()
    loaded.run(tmp_path, *command("whole"))
    took = time.monotonic() - began
    chance, kills = random.Random(11), 0
    while kills < KILLS:
        with loaded.start(tmp_path, *command("killed")) as process:
            time.sleep(chance.uniform(0.1, 0.3) * took)
            if process.poll() is not None:
                break
            process.send(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            kills += 1
    loaded.run(tmp_path, *command("killed"))
    print(f"{kills} kills; {took:.0f} s without")
    assert kills == KILLS
    records = []
    for store in ("whole", "killed"):
        where = ("--store", store, "--record", f"{store}-record", "--plan", "plan.toml")
        loaded.run(tmp_path, "paper", "record", *where)
        records.append(Record.read(tmp_path / f"{store}-record"))
    first, again = records
    for name in FRAMES:
        ours, theirs = getattr(again, name), getattr(first, name)
        drop = [each for each in MOMENTS if each in ours]
        pd.testing.assert_frame_equal(ours.drop(columns=drop), theirs.drop(columns=drop))
    assert differences(first, again) == []
    assert {name: part.table for name, part in first.parts.items()} == {
        name: part.table for name, part in again.parts.items()
    }
