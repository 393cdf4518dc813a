"""``gclip store``: what is there, whether it is whole, and a tidy one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gclip.cli.store import age_text
from gclip.results import Store
from gclip.text import screen
from gclip.training import RunConfig, RunResult, checkpoint

Command = Any  # of conftest.py
CONFIGS = [RunConfig(strategy="norm", seed=seed) for seed in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "runs", create=True)
    for config in CONFIGS[:2]:
        made.save(RunResult(config=config, accuracy=0.5))
    about = {"configs": [CONFIGS[2].to_json()], "present": [0], "epoch": 1, "step": 5, "steps": 9}
    checkpoint.save(made.path / "checkpoints" / CONFIGS[2].key, {"a": 1}, about)
    return made


def break_run(store: Store, config: RunConfig) -> None:
    path = store.path / config.key / "config.json"
    path.write_bytes(path.read_bytes()[:-3])


def test_list(gclip: Command, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    answer = gclip("store", "list")
    assert answer.code == 0
    assert "50.0 %" in answer.out
    assert "under way, step 5 of 9" in " ".join(answer.out.split())
    assert "3 runs in runs" in answer.out
    assert "2 finished" in answer.out
    runs = gclip("store", "list", "--seed", "1", "-s", "norm", "--json").json["runs"]
    assert [(run["key"], run["status"], run["score"]) for run in runs] == [
        (CONFIGS[1].key, "finished", 0.5)
    ]
    assert "0 runs in runs" in gclip("store", "list", "--task", "cifar10").out
    wrong = gclip("store", "list", "--status", "done")
    assert wrong.code == 2
    assert "unknown status 'done'" in wrong.err


def test_check_says_whether_all_is_whole(gclip: Command, store: Store) -> None:
    answer = gclip("store", "check")
    assert answer.code == 0
    assert "2 runs whole" in answer.out
    assert "1 checkpoint" in answer.out
    assert gclip("store", "check", "--json").json["whole"] is True
    break_run(store, CONFIGS[0])
    (store.path / "studies").mkdir()
    (store.path / "studies" / "mine.db").write_bytes(b"x" * 3000)
    answer = gclip("store", "check")
    assert answer.code == 1
    assert f"{CONFIGS[0].key}: config.json does not match its SHA-256" in answer.out
    assert "damaged study: the study file" in answer.out
    assert "gclip store repair --store runs" in answer.out
    found = gclip("store", "check", "--json")
    assert found.code == 1
    assert found.json["counts"] == {"run": 1, "damaged run": 1, "checkpoint": 1}
    assert "mine.db" in found.json["studies"][0]["damaged"]
    assert (store.path / CONFIGS[0].key).is_dir()


def test_repair_and_gc_say_each_thing(gclip: Command, store: Store) -> None:
    break_run(store, CONFIGS[0])
    planned = gclip("store", "repair", "--dry-run")
    assert planned.code == 0
    assert f"would set aside damaged run runs/{CONFIGS[0].key}" in " ".join(planned.out.split())
    assert (store.path / CONFIGS[0].key).is_dir()
    done = gclip("store", "repair")
    assert "moved to" in done.out
    assert not (store.path / CONFIGS[0].key).exists()
    assert gclip("store", "check").code == 0
    assert "nothing is to be repaired" in gclip("store", "repair").out
    assert "nothing is to be removed" in gclip("store", "gc").out
    removed = gclip("store", "gc", "--days", "0", "--json").json
    assert [each["kind"] for each in removed["done"]] == ["set aside"]
    wrong = gclip("store", "gc", "--days", "-1")
    assert wrong.code == 2
    assert "days must be a number" in wrong.err


def test_a_store_that_is_not_there(gclip: Command) -> None:
    for command in ("list", "check", "repair", "gc"):
        answer = gclip("store", command, "--store", "nowhere")
        assert answer.code == 2
        assert "does not exist" in answer.err
        assert not Path("nowhere").exists()


def test_sizes_and_ages() -> None:
    assert [screen.bytes_text(size) for size in (0, 999, 1500, 2e6, 3e9, 4e12)] == [
        *("0 B", "999 B", "1.5 kB", "2.0 MB", "3.0 GB", "4.0 TB"),
    ]
    assert [age_text(age) for age in (0, 59, 120, 7200, 3 * 86400)] == [
        *("0 s", "59 s", "2 min", "2 h", "3 d"),
    ]
