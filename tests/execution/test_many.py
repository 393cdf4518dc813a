"""Lists of runs and comparisons, in this process."""

from pathlib import Path

import pytest

from gclip.core import registry
from gclip.errors import UsageError
from gclip.execution import Event, choose_baseline, compare, run_all
from gclip.execution.compare import paired_configs
from gclip.results import Store
from gclip.training import RunConfig, RunResult

TINY = RunConfig(fraction=0.1, epochs=1, batch_size=64)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events if event.kind != "progress"]


def test_results_come_in_order_and_the_second_time_from_the_store(tmp_path: Path) -> None:
    store, events = Store(tmp_path, create=True), list[Event]()
    one, two = TINY, TINY.replace(strategy="norm")
    runs = run_all([two, one, two], store, workers=1, device="cpu", on_event=events.append)
    assert [run.config for run in runs] == [two, one, two]
    assert runs[0] is runs[2]
    assert kinds(events) == ["queued", "queued", "started", "done", "started", "done"]
    assert events[-1].index == 1
    events.clear()
    again = run_all([one, two], store, workers=1, device="cpu", on_event=events.append)
    assert kinds(events) == ["cached", "cached"]
    assert [run.loss for run in again] == [runs[1].loss, runs[0].loss]


def test_a_run_that_raises_fails_alone_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gclip.training

    store, events = Store(tmp_path, create=True), list[Event]()
    train = gclip.training.train

    def out_of_memory(config: RunConfig, **more: object) -> RunResult:
        if config.strategy == "norm":
            raise MemoryError("cannot allocate\n2 GiB")
        return train(config, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(gclip.training, "train", out_of_memory)
    configs = [TINY.replace(strategy="norm"), TINY]
    failed, fine = run_all(configs, store, workers=1, device="cpu", on_event=events.append)
    assert (failed.status, fine.status) == ("failed", "finished")
    assert failed.message == "MemoryError: cannot allocate 2 GiB"
    assert store.status(failed.config.key) == "failed"
    monkeypatch.undo()
    mended, _ = run_all(configs, store, workers=1, device="cpu")
    assert mended.status == "finished"


def test_ctrl_c_passes_through_and_keeps_what_is_finished(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    configs = paired_configs(["none"], range(3), TINY)

    def stop_at_second(event: Event) -> None:
        if event.kind == "started" and event.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(configs, store, workers=1, device="cpu", on_event=stop_at_second)
    assert store.keys() == (configs[0].key,)


def test_a_plan_is_paired_seed_by_seed() -> None:
    configs = paired_configs(["none", "norm(max_norm=0.5)"], [0, 7], TINY)
    assert [(config.seed, config.strategy) for config in configs] == [
        (0, "none"),
        (0, "norm(max_norm=0.5)"),
        (7, "none"),
        (7, "norm(max_norm=0.5)"),
    ]
    assert len({config.key for config in configs}) == 4


@pytest.mark.parametrize(
    ("strategies", "seeds", "said"),
    [
        (["nrom"], [0], "did you mean 'norm'"),
        (["norm", "clip_norm"], [0], "norm is there twice"),
        (["norm"], [1, 1], "seed 1 is there twice"),
        ([], [0], "at least one strategy"),
        (["norm"], [], "at least one seed"),
        (["norm"], [-1], "seed"),
    ],
)
def test_a_senseless_plan_is_refused(strategies: list[str], seeds: list[int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        paired_configs(strategies, seeds, TINY)


def test_the_baseline_is_none_where_it_takes_part() -> None:
    assert choose_baseline(["norm", "none"], None) == "none"
    assert choose_baseline(["norm", "agc"], None) == "norm"
    assert choose_baseline(["norm", "agc"], "agc") == "agc"
    with pytest.raises(UsageError, match="unknown baseline 'value'"):
        choose_baseline(["norm", "agc"], "value")


def test_compare_makes_a_table(tmp_path: Path) -> None:
    found = compare(
        ["none", "norm"], range(2), base=TINY, store=tmp_path / "runs", workers=1, device="cpu"
    )
    assert set(found.table["strategy"]) == {"none", "norm"}
    assert list(found.table["n"]) == [2, 2]
    assert found.baseline == "none"
    assert len(found.keys) == 4
    assert found.failed == ()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategies": ["nrom"]}, "nrom"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"data": "/no/such/folder", "base": TINY.replace(task="cifar10")}, "does not exist"),
        ({"plugins": ["no/such.py"]}, "no/such.py"),
    ],
)
def test_mistakes_are_found_before_a_store_is_made(
    tmp_path: Path, wrong: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        compare(store=tmp_path / "runs", **{"base": TINY, **wrong})  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()


def test_the_strategies_are_all_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda: ("none", "value"))
    found = compare(seeds=[3], base=TINY, store=tmp_path, workers=1, device="cpu")
    assert [run.config.strategy for run in found.outcomes] == ["none", "value"]
