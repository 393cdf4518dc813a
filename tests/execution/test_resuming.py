"""Runs that were stopped go on from beside their store, in whatever way they are trained."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from gclip.core import stopping
from gclip.errors import UsageError
from gclip.execution import Event, Execution, InProcess, Job, Processes, run_all
from gclip.execution.compare import paired_configs
from gclip.execution.execution import read_seconds
from gclip.execution.queue import JobQueue
from gclip.results import Store
from gclip.results.checkpoints import Checkpoints, SavedRuns
from gclip.training import RunConfig, RunResult, checkpoint
from gclip.training.contract.bits import difference

TINY = RunConfig(fraction=0.1, epochs=3, batch_size=64, lr=0.02)
MIXED = paired_configs(["none", "norm", "zclip"], range(2), TINY)
LOST = TINY.replace(strategy="norm", lr=1e9)


def trained(
    store: Store, configs: list[RunConfig], stop_at: int | None, **more: Any
) -> tuple[list[RunResult], list[Event]]:
    """The results, and what happened; none where the first run was stopped after an epoch."""
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if event.progress is not None and event.progress.epoch == stop_at:
            stopping.request(KeyboardInterrupt())

    try:
        how = {"workers": 1, "device": "cpu", "checkpoint_every": 0, **more}
        return run_all(configs, store, **how, on_event=listen), events
    except KeyboardInterrupt:
        assert stop_at is not None
        return [], events


def assert_equal(found: list[RunResult], whole: list[RunResult]) -> None:
    assert len(found) == len(whole) > 0
    for ours, theirs in zip(found, whole, strict=True):
        assert difference(ours, theirs, "without a stop") is None


def told(events: list[Event], *kinds: str) -> list[str]:
    return [event.message for event in events if event.kind in kinds]


def test_a_run_goes_on_and_drops_its_checkpoint(tmp_path: Path) -> None:
    config = TINY.replace(strategy="norm")
    whole, _ = trained(Store(tmp_path / "a", create=True), [config], None)
    store = Store(tmp_path / "b", create=True)
    trained(store, [config], 2)
    [path] = Checkpoints(store).files()
    assert path.name == config.key
    saved = SavedRuns.read(path)
    assert saved is not None
    assert (saved.epoch, saved.keys) == (2, (config.key,))
    found, events = trained(store, [config], None)
    assert_equal(found, whole)
    steps = [event.progress.epoch for event in events if event.progress is not None]
    assert steps[:2] == [1, 2]  # told again, and not trained
    assert Checkpoints(store).files() == []


def test_a_fleet_goes_on_as_it_was(tmp_path: Path) -> None:
    """Though a run of it has ended since, and though fewer wait, so that fleets would be others."""
    configs = [LOST, *MIXED]
    whole, _ = trained(Store(tmp_path / "a", create=True), configs, None, fleet=4)
    assert whole[0].status == "diverged"
    store = Store(tmp_path / "b", create=True)
    trained(store, configs, 1, fleet=4)
    [path] = Checkpoints(store).files()
    before = path.read_bytes()
    trained(store, configs, 2, fleet=4)
    assert store.has(LOST.key)
    path.write_bytes(before)  # as if it had been killed between the two
    found, events = trained(store, configs, None, fleet=4)
    assert_equal(found, whole)
    assert told(events, "retried", "note") == []
    assert Checkpoints(store).files() == []


def test_another_fleet_begins_anew(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    trained(store, MIXED[:4], 1, fleet=4)
    whole, _ = trained(Store(tmp_path / "a", create=True), MIXED[:2], None, fleet=4)
    found, events = trained(store, MIXED[:2], None, fleet=4)
    assert_equal(found, whole)
    assert told(events, "retried", "note") == []
    off, _ = trained(Store(tmp_path / "b", create=True), MIXED[2:4], None, fleet="off")
    assert_equal(trained(store, MIXED[2:4], None, fleet="off")[0], off)
    [stale] = Checkpoints(store).files()
    trained(store, MIXED[:4], None, fleet=4)
    assert not stale.exists()


def test_a_damaged_checkpoint_costs_one_line(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    for configs in (MIXED[:1], MIXED[1:3]):
        trained(store, configs, 1, fleet=4)
    for path in Checkpoints(store).files():
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
    found, events = trained(store, MIXED[:3], None, fleet=4)
    assert [each.status for each in found] == ["finished"] * 3
    lines = told(events, "note")
    assert len(lines) == 2
    assert all("is damaged: moved to" in line for line in lines)
    assert len(list((tmp_path / ".damaged").iterdir())) == 2


def test_workers_save_their_runs_when_the_command_is_stopped(tmp_path: Path) -> None:
    """In the middle of an epoch."""
    configs = [TINY.replace(epochs=400, strategy=name) for name in ("norm", "none")]
    store = Store(tmp_path, create=True)
    execution = Execution(workers=2, device="cpu", checkpoint_every=1e6)
    seen: set[int] = set()

    def listen(event: Event) -> None:
        if event.progress is not None:
            seen.add(event.index)
        if len(seen) == 2:
            raise KeyboardInterrupt

    def work() -> None:
        with Processes(store, dataclasses.replace(execution, listener=listen)) as pool:
            for place, config in enumerate(configs):
                pool.submit(Job(place, config))
            pool.wait()

    with pytest.raises(KeyboardInterrupt):
        work()
    saved = [Checkpoints(store).of_run(config.key) for config in configs]
    assert all(each is not None and 0 < each.step < each.steps for each in saved)


def test_a_failed_run_is_listed_and_made_again(tmp_path: Path) -> None:
    """And stops no other, in a fleet or alone."""
    store = Store(tmp_path, create=True)
    broken = TINY.replace(code="0" * 12)
    for size in (4, "off"):
        found, events = trained(store, [*MIXED[:2], broken], None, fleet=size)
        assert [each.status for each in found] == ["finished", "finished", "failed"]
        assert "edited" in found[2].message
        assert len(told(events, "failed")) == 1
    assert store.status(broken.key) == "failed"


def test_runs_that_were_together_stay_so() -> None:
    jobs = [Job(place, config) for place, config in enumerate(MIXED)]
    keys = [job.config.key for job in jobs]
    asked: list[list[str]] = []

    def resumable(found: Any) -> list[list[str]]:
        asked.append(list(found))
        return [[keys[4], keys[1], keys[2]], [keys[0]]]

    line = JobQueue(4, 1, lambda *_: None, resumable)
    line.complete = True
    for job in jobs:
        line.add(job)
    assert len(line) == 6
    taken = [[job.index for job in line.take()] for _ in range(3)]
    assert taken == [[4, 1, 2], [0], [3, 5]]
    assert len(line) == 0
    assert asked == [keys]


def test_what_is_asked_for_is_seconds_or_off() -> None:
    assert [read_seconds(each) for each in ("off", None, "0", 2, "1.5")] == [None, None, 0, 2, 1.5]
    for wrong in ("soon", -1, "nan", "inf", 10**400, True):
        with pytest.raises(UsageError, match="checkpoint_every must be seconds"):
            read_seconds(wrong)


def test_a_checkpoint_is_found_by_what_it_says(tmp_path: Path) -> None:
    """One under another name, with another list of runs, or that is none, is nobody's."""
    store = Store(tmp_path, create=True)
    kept = Checkpoints(store)
    assert kept.files() == []
    key = MIXED[0].key
    about = {"configs": [MIXED[0].to_json()], "present": [0], "epoch": 1, "step": 2, "steps": 9}
    checkpoint.save(kept.folder / key, {}, about)
    checkpoint.save(kept.folder / MIXED[1].key, {}, about)
    checkpoint.save(kept.folder / MIXED[2].key, {}, {**about, "present": [3]})
    (kept.folder / hashlib.sha256(b"x").hexdigest()).write_text("none")
    (kept.folder / "notes").write_text("mine")
    assert len(kept.files()) == 4
    assert kept.resumable([config.key for config in MIXED]) == [[key]]
    assert kept.of_run(MIXED[1].key) is None
    assert InProcess(store, Execution(workers=1, device="cpu")).free == 1
