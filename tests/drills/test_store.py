"""Writers and readers of one store at once: no run is lost, none is ever seen half written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.drill
WRITERS, RUNS, READERS = 4, 200, 2

WRITER = """
import sys
from gclip.results import Store
from gclip.training import RunConfig, load_dataset, train
store, number, runs = Store(sys.argv[1], create=True), int(sys.argv[2]), int(sys.argv[3])
digits = load_dataset("digits")
for seed in range(number * runs, (number + 1) * runs):
    config = RunConfig(strategy="norm", seed=seed, epochs=1, fraction=0.02, batch_size=64,
                       model="mlp(width=4)")
    store.save(train(config, dataset=digits, device="cpu"))
"""
READER = """
import json, sys, time, warnings
from pathlib import Path
from gclip.results import Results, Store
warnings.simplefilter("error")
store, most, done = Store(sys.argv[1]), 0, Path(sys.argv[2])
looks = 0
while True:
    last = done.exists()
    runs = Results.read(store).runs
    assert len(runs) >= most, "a run vanished"
    assert (runs["status"] == "finished").all()
    most, looks = len(runs), looks + 1
    if last:
        break
print(json.dumps({"runs": most, "looks": looks}))
"""


def test_four_writers_and_two_readers(tmp_path: Path) -> None:
    folder, done = tmp_path / "runs", tmp_path / "done"
    folder.mkdir()

    def start(code: str, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    readers = [start(READER, str(folder), str(done)) for _ in range(READERS)]
    writers = [start(WRITER, str(folder), str(number), str(RUNS)) for number in range(WRITERS)]
    for each in writers:
        each.communicate()
    assert [each.returncode for each in writers] == [0] * WRITERS
    done.touch()
    answers = [json.loads(each.communicate()[0]) for each in readers]
    assert [each.returncode for each in readers] == [0] * READERS
    print(f"{WRITERS} × {RUNS} runs, read {[each['looks'] for each in answers]} times meanwhile")
    assert [each["runs"] for each in answers] == [WRITERS * RUNS] * READERS
    assert not (folder / ".damaged").exists()
    assert all(each.suffix == ".lock" for each in (folder / ".tmp").iterdir())
