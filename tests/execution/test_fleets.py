"""Runs that train together: planned, handed out, killed, pruned, and counted as if alone."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from gclip.errors import UsageError
from gclip.execution import (
    Event,
    Execution,
    InProcess,
    Job,
    Processes,
    fleet_measurement,
    fleet_sizing,
    run_all,
    speedup,
)
from gclip.execution.compare import paired_configs
from gclip.execution.fleet_plan import evenly, group_into_fleets, read_fleet, why_alone
from gclip.execution.progress import RunsDisplay
from gclip.execution.queue import JobQueue
from gclip.results import Store
from gclip.studies import thresholds
from gclip.training import Progress, RunConfig, load_dataset
from gclip.tuning.fleet_size import fleet_size
from gclip.tuning.sqlite import read_study, study_file
from gclip.tuning.study import Request
from gclip.tuning.trials import counted

TINY = RunConfig(fraction=0.1, epochs=1, batch_size=64, lr=0.02)
LONG = TINY.replace(epochs=3)
MIXED = paired_configs(["none", "norm", "agc"], range(2), TINY)
posix = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
PLUGIN = '''
import os, signal
from dataclasses import dataclass
import gclip

@gclip.register("poison")
@dataclass(frozen=True, kw_only=True)
class Poison(gclip.Strategy):
    """Kills whoever runs it."""
    def limit(self, seen, memory):
        os.kill(os.getpid(), signal.SIGKILL)

@gclip.register("loud")
@dataclass(frozen=True, kw_only=True)
class Loud(gclip.Strategy):
    """Raises."""
    def limit(self, seen, memory):
        raise MemoryError("no memory left")
'''


def kinds(events: list[Event]) -> Counter[str]:
    return Counter(event.kind for event in events if event.kind not in ("progress", "doing"))


def on_cpu(workers: int = 1, **more: Any) -> Execution:
    return Execution(**{"workers": workers, "device": "cpu", **more})


# -- who trains with whom ------------------------------------------------------------------------


def seeds_of(configs: list[RunConfig], fleets: list[list[int]]) -> list[list[int]]:
    return [[configs[place].seed for place in fleet] for fleet in fleets]


def test_runs_of_one_seed_come_first_together() -> None:
    configs = paired_configs(["none", "norm", "agc", "value", "soft"], range(3), TINY)
    assert seeds_of(configs, group_into_fleets(configs, 8)) == [[0] * 5, [1] * 5, [2] * 5]
    assert seeds_of(configs, group_into_fleets(configs, 3)) == [
        [s] * n for s in range(3) for n in (3, 2)
    ]
    # Too few of each seed for a fleet of their own: seeds share fleets, and stay whole.
    few = paired_configs(["none", "norm"], range(7), TINY)
    assert seeds_of(few, group_into_fleets(few, 6)) == [
        [0, 0, 1, 1],
        [2, 2, 3, 3],
        [4, 4, 5, 5],
        [6, 6],
    ]
    assert group_into_fleets(few, 1) == [[place] for place in range(14)]


@pytest.mark.parametrize("size", [2, 5, 8, 32])
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 12, 17, 40])
def test_every_run_is_planned_once_and_workers_share_evenly(
    size: int, workers: int, count: int
) -> None:
    configs = [TINY.replace(lr=0.01 + 0.001 * place) for place in range(count)]
    fleets = group_into_fleets(configs, size, workers)
    assert sorted(place for fleet in fleets for place in fleet) == list(range(count))
    sizes = [len(fleet) for fleet in fleets]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert len(fleets) >= min(workers, count)
    assert evenly(range(count), len(fleets)) == fleets


def test_other_shapes_and_what_cannot_be_stacked_stay_apart() -> None:
    configs = [
        TINY,
        TINY.replace(strategy="norm(side=sample, max_norm=2)"),
        TINY.replace(batch_size=32),
        TINY.replace(lr=0.01, strategy="agc"),
        TINY.replace(batch_size=32, strategy="norm"),
    ]
    assert group_into_fleets(configs, 8) == [[0, 3], [1], [2, 4]]
    assert why_alone(configs[1]) == "norm clips single examples, whose gradients are not stacked"
    assert why_alone(configs[0]) == ""


def job(index: int, **changes: Any) -> Job:
    return Job(index, TINY.replace(lr=0.01 + 0.001 * index, **changes))


def test_the_end_of_a_list_is_for_all_workers() -> None:
    def taken(line: JobQueue, idle: int) -> list[int]:
        return [each.index for each in line.take(idle)]

    said: list[str] = []
    line = JobQueue(8, 2, lambda _, message: said.append(message))
    line.complete = True
    for index in range(24):
        line.add(job(index))
    # Both are idle, then one after the other: in each round there is one for each.
    assert [len(line.take(idle)) for idle in (2, 1, 1, 1)] == [6, 6, 6, 6]
    assert len(line) == 0
    line = JobQueue(12, 2, lambda _, message: said.append(message))
    line.complete = True
    for index in range(18):
        line.add(job(index, seed=index // 6))
    assert [len(line.take(idle)) for idle in (2, 1, 1, 1)] == [6, 6, 3, 3], "the last is shared"
    assert len(line) == 0
    # Where more is to come, only workers that are idle have a share.
    open_line = JobQueue(8, 2, lambda _, message: said.append(message))
    for index in range(6):
        open_line.add(job(index))
    assert taken(open_line, 1) == list(range(6))
    open_line.again([job(3), job(1)])
    open_line.add(job(9, strategy="norm(side=sample)"))
    open_line.add(job(10, strategy="norm(side=sample, max_norm=3)"))
    assert len(open_line) == 4
    assert [taken(open_line, 2) for _ in range(4)] == [[3], [1], [9], [10]]
    assert said == ["not in a fleet: norm clips single examples, whose gradients are not stacked"]


@pytest.mark.parametrize("wrong", ["many", "0", "-1", "2.5", "", 0, True])
def test_a_wrong_size_is_one_sentence(wrong: Any) -> None:
    with pytest.raises(UsageError, match="fleet must be auto, off or a whole number ≥ 1"):
        read_fleet(wrong)
    with pytest.raises(UsageError, match="fleet must be auto"):
        run_all([TINY], None, fleet=wrong, device="cpu")  # type: ignore[arg-type]


# -- in this process -----------------------------------------------------------------------------


def test_a_fleet_gives_what_one_run_after_another_gives(tmp_path: Path) -> None:
    events: list[Event] = []
    configs = [*MIXED, TINY.replace(strategy="norm(side=sample)"), MIXED[0]]
    one, many = Store(tmp_path / "off", create=True), Store(tmp_path / "fleet", create=True)
    alone = run_all(configs, one, workers=1, device="cpu")
    found = run_all(configs, many, workers=1, device="cpu", fleet=4, on_event=events.append)
    assert [run.config for run in found] == configs
    assert [run.environment.get("fleet") for run in found] == [3, 3, 3, 3, 3, 3, None, 3]
    for here, there in zip(found, alone, strict=True):
        assert here.status == there.status == "finished"
        assert here.accuracy == pytest.approx(there.accuracy, abs=0.02)
        for name in ("loss", "norm", "limit", "lr"):
            np.testing.assert_allclose(here.steps[name], there.steps[name], rtol=1e-3, atol=1e-4)
    assert kinds(events) == {"queued": 7, "started": 7, "done": 7, "note": 1}
    assert set(one.keys()) == set(many.keys())
    assert len(many.keys()) == 7
    # Whoever repeats the command, in fleets or not, reads.
    events.clear()
    run_all(configs, many, workers=2, device="cpu", fleet="auto", on_event=events.append)
    assert kinds(events) == {"cached": 7}


def test_a_fleet_that_raises_is_trained_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gclip.training as training
    import gclip.training.fleet.train as fleets

    real, train = fleets.train_fleet, training.train

    def breaks(configs: Any, *, on_result: Any, **more: Any) -> Any:
        def once(place: int, result: Any) -> None:
            on_result(place, result)
            raise MemoryError("too many")

        return real(configs, on_result=once, **more)

    def poisonous(config: RunConfig, **more: Any) -> Any:
        if config.strategy == "norm":
            raise RuntimeError("broken")
        return train(config, **more)

    monkeypatch.setattr(fleets, "train_fleet", breaks)
    monkeypatch.setattr(training, "train", poisonous)
    store, events = Store(tmp_path, create=True), list[Event]()
    found = run_all(MIXED[:3], store, workers=1, device="cpu", fleet=8, on_event=events.append)
    assert [run.status for run in found] == ["finished", "failed", "finished"]
    assert found[1].message == "RuntimeError: broken"
    assert [run.environment.get("fleet") for run in found] == [3, None, None]
    assert kinds(events) == {"queued": 3, "started": 5, "retried": 2, "done": 2, "failed": 1}
    assert [event.message for event in events if event.kind == "retried"] == [
        "its fleet of 3 failed (MemoryError: too many); its runs start again one by one",
        "",
    ]


def test_ctrl_c_in_a_fleet_keeps_what_has_ended(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)

    def stop(event: Event) -> None:
        if event.kind == "started" and event.index == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(MIXED, store, workers=1, device="cpu", fleet=3, on_event=stop)
    assert set(store.keys()) == {config.key for config in MIXED[:3]}


def test_each_run_of_a_fleet_is_judged_by_itself(tmp_path: Path) -> None:
    store, asked = Store(tmp_path, create=True), list[tuple[int, int]]()

    def should_continue(job: Job, progress: Progress) -> bool:
        asked.append((job.index, progress.epoch))
        return job.index != 1

    with InProcess(store, on_cpu(fleet=3)) as pool:
        assert pool.free == 3
        pool.should_continue = should_continue
        for index, config in enumerate(paired_configs(["none", "norm", "agc"], [0], LONG)):
            pool.submit(Job(index, config))
        assert pool.free == 0
        ended = {job.index: result for job, result in pool.wait()}
        assert pool.free == 3
    assert [ended[index].status for index in range(3)] == ["finished", "pruned", "finished"]
    assert sorted(asked) == [(0, 1), (0, 2), (1, 1), (2, 1), (2, 2)]
    assert len(ended[1].curve) == 1


# -- in workers ----------------------------------------------------------------------------------


@posix
def test_a_killed_worker_costs_what_had_not_ended(tmp_path: Path) -> None:
    store, events = Store(tmp_path / "a", create=True), list[Event]()
    configs = paired_configs(["none", "norm", "agc"], [0], LONG)
    judged: list[int] = []

    def kill(event: Event) -> None:
        events.append(event)
        # When the first has been given up and is stored, the others are under way.
        if event.kind == "done" and len(pool.pids()) == 1 and event.index == 0:
            os.kill(pool.pids()[0], signal.SIGKILL)

    def should_continue(job: Job, progress: Progress) -> bool:
        judged.append(job.index)
        return job.index != 0

    with Processes(store, on_cpu(fleet=4, listener=kill)) as pool:
        pool.should_continue = should_continue
        assert pool.free == 4
        for index, config in enumerate(configs):
            pool.submit(Job(index, config))
        assert (pool.free, pool.pids()) == (1, ()), "handed out when waited for"
        ended = [pair for _ in range(3) for pair in pool.wait()]
        assert pool.free == 4
    assert [(job.index, result.status) for job, result in ended] == [
        *((0, "pruned"), (1, "finished"), (2, "finished"))
    ]
    assert kinds(events) == {"started": 5, "retried": 2, "done": 3}
    said = [event.message for event in events if event.kind == "retried"]
    assert "SIGKILL" in said[0]
    assert said[0].endswith("its runs start again one by one")
    # One by one they are the bits of a run that never was in a fleet.
    [alone] = run_all([configs[1]], Store(tmp_path / "b", create=True), workers=1, device="cpu")
    assert (alone.steps["norm"] == ended[1][1].steps["norm"]).all()
    assert "fleet" not in ended[1][1].environment


@posix
def test_a_poisonous_run_takes_no_other_with_it(tmp_path: Path) -> None:
    import gclip

    (tmp_path / "mine.py").write_text(PLUGIN)
    plugin = str(tmp_path / "mine.py")
    gclip.load_plugins(plugin)
    store, events = Store(tmp_path / "runs", create=True), list[Event]()
    configs = paired_configs(["none", "loud", "norm", "poison"], [0], TINY)
    execution = on_cpu(fleet=2, plugins=(plugin,), listener=events.append)
    with Processes(store, execution) as pool:
        pool.submit_all([Job(index, config) for index, config in enumerate(configs)])
        ended = [pool.wait() for _ in range(4)]
        assert pool.free == 2
    found = {job.index: result for [(job, result)] in ended}
    assert [found[index].status for index in range(4)] == [
        *("finished", "failed", "finished", "failed")
    ]
    assert found[1].message == "MemoryError: no memory left"
    assert "SIGKILL" in found[3].message
    assert "2 times" in found[3].message
    assert kinds(events) == {"started": 8, "retried": 4, "done": 2, "failed": 2}
    said = [event.message for event in events if event.kind == "retried" and event.message]
    assert said[0].startswith("its fleet of 2 failed (MemoryError: no memory left)")
    assert "SIGKILL" in said[1]


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    script = f"""
from gclip.results import Store
from gclip.execution import compare, run_all
from gclip.execution.compare import paired_configs
from gclip.training import RunConfig
configs = paired_configs(["none", "norm", "agc"], range(2), RunConfig.from_json({TINY.to_json()!r}))
found = run_all(configs, Store({str(tmp_path)!r}, create=True), workers=1, device="cpu", fleet=3)
print(sorted(run.status for run in found))
"""
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    store = Store(tmp_path, create=True)
    deadline = time.monotonic() + 60
    while not store.keys() and time.monotonic() < deadline:
        time.sleep(0.02)
    found = run_all(MIXED, store, workers=1, device="cpu", fleet=4)
    out, _ = other.communicate(timeout=60)
    assert [run.status for run in found] == ["finished"] * 6
    assert out.strip() == str(["finished"] * 6)
    assert set(store.keys()) == {config.key for config in MIXED}


# -- studies -------------------------------------------------------------------------------------


def asked(path: Path, *, base: RunConfig = TINY, **more: Any) -> Request:
    names = Execution.__dataclass_fields__
    how = {name: more.pop(name) for name in list(more) if name in names}
    return Request(
        base=base,
        store=Store(path, create=True),
        execution=on_cpu(**how),
        **{"strategies": ("norm",), **more},
    )


def listening(request: Request, listener: Any) -> Request:
    execution = dataclasses.replace(request.execution, listener=listener)
    return dataclasses.replace(request, execution=execution)


def trials(request: Request, row: Any) -> list[Any]:
    with read_study(study_file(request.store.path, row["study"])) as study:
        return counted(study)


@pytest.mark.parametrize("sampler", ["random", "qmc", "grid"])
def test_trials_are_the_same_in_fleets(tmp_path: Path, sampler: str) -> None:
    found = {}
    for fleet in ("off", 4):
        request = asked(
            tmp_path / str(fleet), sampler=sampler, trials=6, fleet=fleet, lr_range=(1e-3, 1e-2)
        )
        found[fleet] = trials(request, thresholds.run(request).rows[0])
    assert [t.params for t in found[4]] == [t.params for t in found["off"]]
    assert [t.value for t in found[4]] == pytest.approx([t.value for t in found["off"]], abs=0.02)
    assert [t.number for t in found[4]] == list(range(6))


def test_a_study_with_pruning_and_fleets_has_exactly_its_trials(tmp_path: Path) -> None:
    request = asked(
        tmp_path,
        base=LONG.replace(batch_size=32),
        pruner="median",
        trials=11,
        fleet=4,
        space={"lr": "0.02|1e-7", "max_norm": "0.3..1"},
        seeds_per_trial=2,
        seed=1,
    )

    def stop(event: Event) -> None:
        if event.kind == "started" and event.index >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        thresholds.run(listening(request, stop))
    [row] = thresholds.run(request).rows
    assert (row["trials"], row["failed"]) == (11, 0)
    ended = trials(request, row)
    assert len(ended) == 11
    pruned = [trial for trial in ended if trial.state.name == "PRUNED"]
    assert len(pruned) == row["pruned"] >= 1
    for trial in ended:
        stored = [request.store.status(key) for key in trial.user_attrs["keys"]]
        # Given up within a run, or between two.
        assert (stored == ["finished", "finished"]) == (trial not in pruned)
        assert set(stored) <= {"pruned", "finished", None}
    # The same again makes nothing.
    events: list[Event] = []
    thresholds.run(listening(request, events.append))
    assert set(kinds(events)) == {"cached"}


def test_what_cannot_be_stacked_is_asked_for_one_by_one(tmp_path: Path) -> None:
    events: list[Event] = []
    request = asked(
        tmp_path,
        strategies=("norm(side=sample)",),
        trials=2,
        fleet=8,
        listener=events.append,
    )
    thresholds.run(request)
    notes = [event.message for event in events if event.kind == "note"]
    assert notes == ["no fleets: norm clips single examples, whose gradients are not stacked"]
    order = [event.kind for event in events if event.kind in ("queued", "done")]
    assert order == ["queued", "done"] * 2


# -- how large -----------------------------------------------------------------------------------


def work(count: int, **more: Any) -> fleet_sizing.Workload:
    configs = [TINY.replace(lr=0.01 + 1e-4 * place, strategy="norm") for place in range(count)]
    execution = on_cpu(2, **{"fleet": "auto", **more})
    return fleet_sizing.Workload(configs=configs, waiting=count, execution=execution)


def chosen(work: fleet_sizing.Workload, folder: Path) -> int:
    """What is chosen by those who measure in this process, with as many workers as `work` has."""
    digits = load_dataset("digits")

    def measure(*what: Any) -> Any:
        return fleet_measurement.measure(what[0], digits, work.execution, *what[1:])

    return fleet_sizing.choose(work, folder, Job(0, work.configs[0]), measure)


def notes(said: list[str]) -> Any:
    """A listener that writes down what it is told about many runs."""
    return lambda event: said.append(event.message) if event.kind == "note" else None


def test_the_smallest_of_the_fastest_is_taken_and_none_that_gains_nothing() -> None:
    found = speedup.Speedup({4: 2.0, 8: 3.0, 16: 3.05, 32: 2.5}, 32)
    assert found.best(32) == 8
    assert found.best(7) == 4
    assert found.best(3) == 1
    assert speedup.Speedup({4: 1.04, 8: 0.9}, 8).best(8) == 1
    assert speedup.Speedup({}, 8).best(8) == 1


def test_nothing_is_measured_where_it_would_not_pay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(fleet_measurement, "_compare", never)
    said: list[str] = []
    assert chosen(work(2, listener=notes(said)), tmp_path) == 1, "one run a worker"
    assert chosen(work(40, listener=notes(said)), tmp_path) == 1, "a few steps each"
    monkeypatch.setattr(fleet_sizing, "LEAST_STEPS", 0)
    assert chosen(work(40, listener=notes(said)), tmp_path) == 1, "a few seconds"
    assert chosen(dataclasses.replace(work(40, listener=notes(said)), largest=1), tmp_path) == 1
    assert chosen(work(40, fleet=1, listener=notes(said)), tmp_path) == 1
    assert chosen(work(40, fleet=5, listener=notes(said)), tmp_path) == 5
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_it_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_sizing, "LEAST_STEPS", 0)
    monkeypatch.setattr(fleet_measurement, "LEAST_SECONDS", 0)
    monkeypatch.setattr(fleet_measurement, "SHARE", 1e9)
    said: list[str] = []
    todo = work(16, dataset=load_dataset("digits"), listener=notes(said))
    began = time.monotonic()
    size = chosen(todo, tmp_path)
    assert time.monotonic() - began < 4 * fleet_measurement.BUDGET  # however busy the machine is
    monkeypatch.setattr(fleet_measurement, "measure", None)
    assert chosen(todo, tmp_path) == size
    assert said[0].replace("measured", "measured before") == said[1]
    if size > 1:
        assert said[0].startswith(f"fleets of {size}: ")
        assert said[0].endswith("x one after another, measured")
    # Fewer runs that wait are decided from the same finding; of another shape, anew.
    chosen(dataclasses.replace(todo, waiting=10), tmp_path)
    other = [config.replace(batch_size=32) for config in todo.configs]
    with pytest.raises(TypeError):
        chosen(dataclasses.replace(todo, configs=other), tmp_path)
    # A file that is damaged is as good as none.
    (tmp_path / speedup.FILE).write_text("[")
    assert speedup.read(tmp_path, fleet_sizing.describe(todo, todo.configs)) is None
    found = speedup.Speedup({4: 2.0}, 8)
    speedup.write(tmp_path, fleet_sizing.describe(todo, todo.configs), found)
    assert speedup.read(tmp_path, fleet_sizing.describe(todo, todo.configs)) == found
    assert [path.name for path in tmp_path.iterdir()] == [speedup.FILE]


def test_several_workers_measure_together_and_then_train(tmp_path: Path) -> None:
    store, todo = Store(tmp_path, create=True), work(8)
    with Processes(store, on_cpu(2)) as pool:
        found = pool.measure(todo.configs, 4, 1e6)
        assert found is not None
        assert (set(found.times), found.most) == ({4}, 4)
        assert 0.1 < found.times[4] < 100
        measuring = pool.pids()
        assert len(measuring) == 2
        pool.resize(4)
        pool.submit_all([Job(place, config) for place, config in enumerate(todo.configs)])
        ended: list[Any] = []
        while len(ended) < 8:
            ended += pool.wait()
        assert pool.pids() == measuring
    assert [result.environment["fleet"] for _, result in ended] == [4] * 8


@posix
def test_workers_that_cannot_measure_train_one_by_one(tmp_path: Path) -> None:
    store, todo = Store(tmp_path, create=True), work(8)
    with Processes(store, on_cpu(2)) as pool:
        # Too little work is worth no measurement.
        assert pool.measure(todo.configs, 4, 10) is None
        # What these workers do not know is for the runs to say.
        other = [config.replace(task="cifar10", data="") for config in todo.configs]
        assert pool.measure(other, 4, 1e6) is None
        # One that is killed is another's to replace.
        receive, killed = pool._receive, []

        def kill() -> Any:
            if not killed:
                killed.append(pool.pids()[0])
                os.kill(killed[0], signal.SIGKILL)
            return receive()

        pool._receive = kill  # type: ignore[method-assign]
        assert pool.measure(todo.configs, 4, 1e6) is None
        assert killed[0] not in pool.pids()
        pool.submit_all([Job(place, config) for place, config in enumerate(todo.configs[:2])])
        ended: list[Any] = []
        while len(ended) < 2:
            ended += pool.wait()
    assert all("fleet" not in result.environment for _, result in ended)


def test_what_workers_found_is_one_finding() -> None:
    one, other = (
        speedup.Speedup({4: 2.0, 8: 3.0, 16: 9.0}, 16),
        speedup.Speedup({8: 4.0, 4: 1.0}, 8),
    )
    assert speedup.Speedup.mean([one, other]) == speedup.Speedup({4: 1.5, 8: 3.5}, 8)
    assert speedup.Speedup.of(json.loads(json.dumps(one.to_json()))) == one
    assert speedup.Speedup.of({"times": {"x": 1}, "most": 2}) is None


def test_sampling_that_learns_keeps_some_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caps, found = {}, {}

    def choose(work: fleet_sizing.Workload, *_: Any) -> int:
        caps[work.execution.fleet, work.largest] = work.cap
        return 1

    monkeypatch.setattr(fleet_sizing, "choose", choose)
    for sampler in ("tpe", "random"):
        request = asked(tmp_path / sampler, sampler=sampler, trials=24, fleet="auto", workers=2)
        [made] = thresholds.plans(request)
        for shared in (False, True):
            fleet_size(made, 24, tmp_path, request.execution, cast("Any", None), shared=shared)
            found[sampler, shared] = caps.popitem()[1]
    # Where other machines take from the same trials, there must be some left for them.
    assert found == {
        ("tpe", False): 3, ("tpe", True): 3, ("random", False): 12, ("random", True): 3
    }  # fmt: skip


# -- what is shown -------------------------------------------------------------------------------


def test_the_display_says_how_once_and_has_lines_for_some(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = RunsDisplay(40)
    with display:
        for index in range(32):
            display(Event(kind="note", index=index, config=TINY, message="fleets of 16: 3.1x"))
            display(Event(kind="started", index=index, config=TINY))
        for index in range(32):
            message = "its fleet of 32 failed" if index == 0 else ""
            display(Event(kind="retried", index=index, config=TINY, message=message))
    said = capsys.readouterr().err
    assert said.count("fleets of 16: 3.1x\n") == 1
    assert said.count("retried: ") == 1
    assert "32 started again" in display.summary()
