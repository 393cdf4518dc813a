"""The study of thresholds: the protocol, really trained."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from gclip import studies
from gclip.errors import UsageError
from gclip.execution import Event, Execution, Job, open_pool
from gclip.results import Store
from gclip.studies import thresholds
from gclip.training import Progress, RunConfig
from gclip.tuning.plan import TUNING_SEEDS
from gclip.tuning.sqlite import read_study, study_file
from gclip.tuning.study import Request
from gclip.tuning.trials import counted
from tests.studies import synthetic

TINY = RunConfig(fraction=0.1, epochs=1, batch_size=64)
asked = functools.partial(synthetic.asked, base=TINY)


def test_studies_are_found_by_their_files() -> None:
    assert "thresholds" in studies.names()
    assert studies.question("thresholds").startswith("How large should the limit be?")
    with pytest.raises(UsageError, match="did you mean 'thresholds'"):
        studies.get("threshold")


@pytest.mark.parametrize("name", studies.names())
def test_every_study_says_what_it_asks_and_reads(name: str) -> None:
    assert studies.question(name).endswith((".", "?"))
    assert set(studies.uses(name)) <= set(Request.__dataclass_fields__)
    assert callable(studies.get(name).run)


def test_several_strategies_are_a_study_each_with_equal_budgets(tmp_path: Path) -> None:
    request = asked(
        tmp_path, "agc(eps=0.5)", "none", trials=2, space={"agc.clip_factor": "0.1|0.2"}
    )
    answer = thresholds.run(request)
    assert answer.ok
    assert [row["strategy"] for row in answer.rows] == ["agc(eps=0.5)", "none"]
    assert [row["trials"] for row in answer.rows] == [2, 2]
    agc, none = answer.more["studies"]
    assert agc["study"] == "thresholds-agc-eps-0.5-digits"
    assert agc["best"]["split"] == "validation"
    assert agc["best"]["seed"] == TUNING_SEEDS
    assert agc["best"]["strategy"] in (
        "agc(clip_factor=0.1, eps=0.5)",
        "agc(clip_factor=0.2, eps=0.5)",
    )
    assert agc["space"] == {"clip_factor": "0.1|0.2", "lr": "0.005..0.75:log"}
    assert none["space"] == {"lr": "0.005..0.75:log"}
    with read_study(study_file(tmp_path, agc["study"])) as study:
        best = max(trial.values[0] for trial in counted(study))
    assert agc["score"] == best == answer.rows[0]["score"]
    assert "pruned" not in answer.columns.values()
    # The same again reads; a larger total makes what is missing.
    events: list[Event] = []
    again = thresholds.run(asked(tmp_path, "none", trials=3, listener=events.append))
    assert again.rows[0]["trials"] == 3
    kinds = [event.kind for event in events if event.kind != "progress"]
    assert kinds == ["cached", "cached", "queued", "started", "done"]


def test_random_trials_have_the_same_learning_rates_for_all(tmp_path: Path) -> None:
    answer = thresholds.run(asked(tmp_path, "agc", "none", trials=3, sampler="random"))
    rates = []
    for each in answer.more["studies"]:
        with read_study(study_file(tmp_path, each["study"])) as study:
            rates.append([trial.params["lr"] for trial in counted(study)])
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 3


def test_real_workers_are_stopped_between_epochs(tmp_path: Path) -> None:
    # A learning rate at which nothing is learned, after five at which much is.
    base = TINY.replace(epochs=4, batch_size=32)
    request = asked(
        tmp_path,
        "norm",
        base=base,
        pruner="median",
        trials=8,
        workers=2,
        space={"lr": "0.02|1e-7", "max_norm": "0.3..1"},
        seed=1,
    )
    answer = thresholds.run(request)
    [row] = answer.rows
    assert row["trials"] == 8
    assert row["failed"] == 0
    with read_study(study_file(tmp_path, row["study"])) as study:
        trials = counted(study)
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert len(pruned) == row["pruned"] >= 1
    for trial in pruned:
        stored = request.store.load(trial.user_attrs["key"])
        assert stored.status == "pruned"
        # It waited for the verdict: not a step more than that epoch.
        assert len(stored.curve) == trial.user_attrs["pruned_at"] < 4
        assert stored.stopped_at is not None
        steps = stored.curve[-1]["step"]
        assert stored.stopped_at == steps
    whole = next(trial for trial in trials if trial.state.name == "COMPLETE")
    assert list(whole.intermediate_values) == [1, 2, 3, 4]
    assert whole.intermediate_values[4] == whole.value


def test_a_run_in_this_process_is_stopped_between_epochs(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    asked_at: list[tuple[int, float | None]] = []

    def should_continue(job: Job, progress: Progress) -> bool:
        asked_at.append((progress.epoch, progress.accuracy))
        return progress.epoch < 2

    with open_pool(store, Execution(workers=1, device="cpu")) as pool:
        pool.should_continue = should_continue
        pool.submit(Job(0, TINY.replace(epochs=4)))
        [(_, result)] = pool.wait()
        pool.submit(Job(1, TINY))
        [(_, single)] = pool.wait()
    assert result.status == "pruned"
    assert asked_at == [(1, result.curve[0]["accuracy"]), (2, result.accuracy)]
    assert len(result.curve) == 2
    assert single.status == "finished", "nobody asks after the last epoch"


def test_a_grid_and_a_front(tmp_path: Path) -> None:
    request = asked(
        tmp_path,
        "norm",
        sampler="grid",
        points=2,
        lr_range=(0.01, 0.1),
        space={"max_norm": "0.5..5"},
        objectives=("accuracy", "clip_rate"),
    )
    answer = thresholds.run(request)
    [row] = answer.rows
    assert row["trials"] == 4
    with read_study(study_file(tmp_path, row["study"])) as study:
        points = {(t.params["max_norm"], t.params["lr"]) for t in counted(study)}
    assert points == {(0.5, 0.01), (0.5, 0.1), (5.0, 0.01), (5.0, 0.1)}
    front = answer.more["studies"][0]["front"]
    assert front[0]["accuracy"] == row["score"]
    rates = [each["clip_rate"] for each in front]
    assert rates == sorted(rates, reverse=True), "less accuracy only for less clipping"
    assert any("steps clipped" in note for note in answer.notes)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"strategies": ()}, "--strategy"),
        ({"strategies": ("norm", "clip_norm")}, "norm is there twice"),
        ({"trials": 0}, "trials must be a whole number from 1 to 1,000,000, but got 0"),
        ({"fixed_lr": True, "lr_range": (0.1, 1.0)}, "not both"),
        ({"fixed_lr": True, "space": {"lr": "0.1..1"}}, "not both"),
        ({"seeds_per_trial": 0}, "seeds per trial must be a whole number from 1"),
        ({"strategies": ("norm", "random"), "sampler": "grid"}, "grids differ in size"),
        ({"sampler": "grid", "points": 2, "trials": 5}, "has 4 points, but 5 trials"),
        ({"name": "../out"}, "a study's name"),
        ({"space": {"max_nrom": "1..2"}}, "did you mean 'max_norm'"),
    ],
)
def test_what_is_wrong_is_known_before_the_first_trial(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    chosen = more.pop("strategies", ("norm",))
    with pytest.raises(UsageError, match=said):
        thresholds.run(asked(tmp_path, *chosen, **more))
    assert not (tmp_path / "studies").exists()


def test_a_study_goes_on_only_as_it_was_begun(tmp_path: Path) -> None:
    thresholds.run(asked(tmp_path, "norm", trials=1))
    with pytest.raises(
        UsageError, match="begun with range of max_norm '0.001..100:log', not range "
    ):
        thresholds.run(asked(tmp_path, "norm", trials=2, space={"max_norm": "1..2"}))
    with pytest.raises(UsageError, match="begun with sampler 'tpe', not sampler 'random'"):
        thresholds.run(asked(tmp_path, "norm", trials=2, sampler="random"))
    base = TINY.replace(epochs=2)
    with pytest.raises(UsageError, match="epochs 1, no pruner, not epochs 2, pruner 'median'"):
        thresholds.run(asked(tmp_path, "norm", trials=2, base=base, pruner="median"))
