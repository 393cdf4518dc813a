"""What is in a store is told, what is damaged set aside, what nobody needs removed; and no more."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gclip.errors import UsageError
from gclip.results import Store
from gclip.results.care import collect, repair
from gclip.results.checkpoints import Checkpoints, file_name
from gclip.results.inventory import look
from gclip.results.run_list import runs_in
from gclip.training import RunConfig, RunResult, checkpoint
from gclip.training.metric import Metric

CONFIGS = [RunConfig(strategy="norm", seed=seed) for seed in range(4)]
ADDING = RunConfig(task="adding(length=4)", strategy="agc(clip_factor=0.1)")
OLD = time.time() - 40 * 24 * 3600


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With a run of every kind: finished, diverged, failed, of another metric, and damaged."""
    made = Store(tmp_path / "runs", create=True)
    made.save(RunResult(config=CONFIGS[0], accuracy=0.75))
    made.save(RunResult(config=CONFIGS[1], status="diverged", accuracy=0.1, stopped_at=3))
    made.save(RunResult.failed(CONFIGS[2], "no memory"))
    metric = Metric("mean squared error", better="lower", worst=1.0)
    made.save(RunResult(config=ADDING, metric=metric, scores={metric.name: 0.25}))
    made.save(RunResult(config=CONFIGS[3], accuracy=0.9))
    path = made.path / CONFIGS[3].key / "result.json"
    path.write_bytes(path.read_bytes().replace(b"0.9", b"0.8"))
    return made


def save_checkpoint(store: Store, configs: list[RunConfig], name: str = "") -> Path:
    texts = [config.to_json() for config in configs]
    about = {
        "configs": texts, "present": list(range(len(texts))), "epoch": 1, "step": 5, "steps": 20,
    }  # fmt: skip
    path = Checkpoints(store).folder / (name or file_name([config.key for config in configs]))
    checkpoint.save(path, {"a": 1}, about)
    return path


def kinds(store: Store) -> dict[str, str]:
    """What there is, by the name of its file."""
    return {each.path.name: each.kind for each in look(store)}


def everything(store: Store) -> set[str]:
    return {
        str(path.relative_to(store.path))
        for path in store.path.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def dead() -> int:
    """The process id of one that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_everything_is_told_and_nothing_changed(store: Store) -> None:
    save_checkpoint(store, [CONFIGS[2]])
    save_checkpoint(store, CONFIGS[:3])
    stale = save_checkpoint(store, [CONFIGS[0], ADDING])
    renamed = save_checkpoint(store, [CONFIGS[2]], name="f" * 64)
    broken = save_checkpoint(store, [CONFIGS[3]])
    broken.write_bytes(broken.read_bytes()[:-1])
    (store.path / ".tmp" / "half").mkdir()
    (Checkpoints(store).folder / "notes").write_text("mine")
    before = everything(store)
    assert (
        kinds(store)
        == {
            CONFIGS[0].key: "run",
            CONFIGS[1].key: "run",
            ADDING.key: "run",
            CONFIGS[2].key: "checkpoint",  # beside its failed run
            CONFIGS[3].key: "damaged checkpoint",
            file_name([config.key for config in CONFIGS[:3]]): "checkpoint",
            stale.name: "stale checkpoint",
            renamed.name: "stale checkpoint",
            "half": "orphaned temporary",
        }
    )
    why = {each.kind: each.why for each in look(store)}
    assert "does not match its SHA-256" in why["damaged run"]
    assert why["checkpoint"] == "step 5 of 20" or "a fleet of 3" in why["checkpoint"]
    assert all(each.size > 0 for each in look(store) if each.path.is_file())
    assert everything(store) == before


def test_damage_is_set_aside_and_nothing_lost(store: Store) -> None:
    broken = save_checkpoint(store, [CONFIGS[2]])
    broken.write_bytes(b"x" + broken.read_bytes()[1:])
    whole = save_checkpoint(store, CONFIGS[:3])
    half = store.path / ".tmp" / "half"
    half.mkdir()
    orphan = whole.with_name(f".{whole.name}.{checkpoint._host()}-{dead()}-abcd_123")
    living = whole.with_name(f".{whole.name}.{checkpoint._host()}-{os.getpid()}-abcd_123")
    for path in (orphan, living):
        path.write_bytes(b"half")
    before = everything(store)
    planned = repair(store, dry_run=True)
    assert everything(store) == before
    assert sorted((one.action, one.found.kind) for one in planned) == [
        ("remove", "orphaned temporary"),
        ("remove", "orphaned temporary"),
        ("set aside", "damaged checkpoint"),
        ("set aside", "damaged run"),
    ]
    done = repair(store)
    assert [one.found.path for one in done] == [one.found.path for one in planned]
    assert not any(one.failed for one in done)
    moved = {one.found.kind: one.to for one in done if one.to is not None}
    assert moved == {
        "damaged run": store.path / ".damaged" / CONFIGS[3].key,
        "damaged checkpoint": store.path / ".damaged" / f"{CONFIGS[2].key}.checkpoint",
    }
    assert all(path.exists() for path in moved.values())
    assert not half.exists()
    assert not orphan.exists()
    assert living.exists()
    assert whole.exists()
    assert repair(store) == []
    assert set(store.keys()) == {c.key for c in (*CONFIGS[:3], ADDING)}


def test_only_what_nobody_needs_is_removed(store: Store) -> None:
    stale = save_checkpoint(store, [CONFIGS[0]])
    under_way = save_checkpoint(store, [CONFIGS[2]])
    repair(store)
    old, new = store.path / ".damaged" / "old", store.path / ".damaged" / CONFIGS[3].key
    old.mkdir()
    os.utime(old, (OLD, OLD))
    before = everything(store)
    assert {one.found.path for one in collect(store, dry_run=True)} == {stale, old}
    assert everything(store) == before
    assert {one.found.path for one in collect(store)} == {stale, old}
    assert not stale.exists()
    assert not old.exists()
    assert under_way.exists()
    assert new.exists()
    assert len(store.keys()) == 4
    assert [one.found.path for one in collect(store, days=0)] == [new]
    assert len(store.keys()) == 4
    with pytest.raises(UsageError, match="days must be a number ≥ 0, but got -1"):
        collect(store, days=-1)


def test_a_checkpoint_that_was_written_since_stays(store: Store) -> None:
    path = save_checkpoint(store, [CONFIGS[0]])
    seen = look(store)
    path.unlink()
    save_checkpoint(store, [CONFIGS[2]], name=path.name)
    save_checkpoint(store, [CONFIGS[2]])
    assert [one.found.path for one in collect(store, things=seen)] == [path]


def test_runs_are_listed_by_what_they_are_of(store: Store) -> None:
    save_checkpoint(store, [CONFIGS[2], CONFIGS[0]])
    rows = {row.key: row for row in runs_in(store)}
    assert len(rows) == 5
    assert rows[CONFIGS[0].key].status == "finished"  # though it is in the checkpoint, too
    assert rows[CONFIGS[1].key].status == "diverged"
    assert rows[CONFIGS[2].key].status == "under way"
    assert rows[CONFIGS[2].key].message == "step 5 of 20"
    assert rows[CONFIGS[3].key].status == "damaged"
    assert rows[CONFIGS[3].key].strategy is None
    assert rows[CONFIGS[0].key].score == 0.75
    adding = rows[ADDING.key].to_dict()
    assert (adding["metric"], adding["score"]) == ("mean squared error", 0.25)

    def chosen(**more: Any) -> set[str]:
        return {row.key for row in runs_in(store, **more)}

    assert chosen(task="adding") == chosen(strategy="agc") == {ADDING.key}
    assert chosen(strategy="agc(clip_factor=0.1)") == {ADDING.key}
    assert chosen(strategy="agc(clip_factor=0.2)") == set()
    assert chosen(model="lenet", seed=1) == {CONFIGS[1].key}
    assert chosen(status="under way") == {CONFIGS[2].key}
    with pytest.raises(UsageError, match="unknown status 'finishd'; did you mean 'finished'"):
        runs_in(store, status="finishd")


def test_studies_that_are_damaged_or_say_what_their_runs_do_not(store: Store) -> None:
    from gclip.execution import Execution
    from gclip.studies import thresholds
    from gclip.tuning.sqlite import study_file
    from gclip.tuning.study import Request
    from gclip.tuning.study_check import check_studies
    from tests.tuning.pools import PretendedPool

    assert check_studies(store) == []
    request = Request(base=RunConfig(epochs=1), store=store, execution=Execution(workers=1))
    plan = thresholds.plan_of(request, "norm")
    from gclip.tuning.sqlite import open_study

    class Storing(PretendedPool):
        def end(self, job: Any) -> RunResult:
            result = RunResult(config=job.config, accuracy=0.5, seconds=1.0)
            store.save(result)
            return result

    with open_study(store.path, "mine", plan.settings) as study:
        plan.coordinator(study, store).run(Storing(store), 2)
    [found] = check_studies(store)
    assert (found.trials, found.damaged) == (2, "")
    path = study_file(store.path, "mine")
    with sqlite3.connect(path) as database:
        database.execute(
            "UPDATE trial_user_attributes SET value_json = '[0.75]' WHERE key = 'accuracies'"
        )
        database.execute("UPDATE trial_values SET value = 0.75")
    database.close()
    [found] = check_studies(store)
    assert "says accuracy 0.75 of run" in found.damaged
    assert "which has 0.5" in found.damaged
    path.write_bytes(b"x" * 5000)
    [found] = check_studies(store)
    assert str(path) in found.damaged
