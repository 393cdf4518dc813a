"""A study as a table: one row a trial, with how it stands."""

from __future__ import annotations

import json
from pathlib import Path

import optuna

from gclip.training import RunConfig
from gclip.tuning.inspection import rows
from gclip.tuning.plan import Plan
from gclip.tuning.space import space_of
from gclip.tuning.sqlite import open_study, study_file


def test_trials_that_have_not_ended_say_so(tmp_path: Path) -> None:
    base = RunConfig(fraction=0.05, epochs=1, batch_size=64)
    plan = Plan(name="open", base=base, space=space_of("norm", lr_range=(0.01, 0.1)))
    with open_study(tmp_path, "open", plan.settings) as study:
        ended, failed, _running = (study.ask() for _ in range(3))
        ended.set_user_attr("config", json.loads(plan.propose(ended).to_json()))
        study.tell(ended, 0.5)
        study.tell(failed, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial({"lr": 0.02, "max_norm": 1.0})
    found = rows(study_file(tmp_path, "open"))
    assert [row["status"] for row in found] == ["finished", "failed", "running", "waiting"]
    assert [row["accuracy"] for row in found] == [0.5, None, None, None]


def test_where_all_diverged_there_is_no_best() -> None:
    import optuna

    from gclip.tuning.trials import best_of, counts, no_best

    def ended(status: str, value: float, **more: object) -> optuna.trial.FrozenTrial:
        return optuna.trial.create_trial(value=value, user_attrs={"status": status, **more})

    lost = [ended("diverged", 0.1), ended("diverged", 0.1, keys=["a", "b"], diverged=2)]
    assert best_of(lost) is None
    assert "All completed trials diverged" in no_best(counts(lost))
    assert "No trial was completed" in no_best(counts([]))
    half = ended("diverged", 0.4, keys=["a", "b"], diverged=1)
    assert best_of([*lost, half]) is half
