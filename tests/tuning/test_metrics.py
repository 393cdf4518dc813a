"""A study of a loss minimises: its trials, its pruners, its best, its front and its file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest

from gclip.errors import UsageError
from gclip.execution import Job
from gclip.results import Store
from gclip.training import Progress, RunConfig, RunResult
from gclip.training.metric import ACCURACY
from gclip.tuning import inspection, plan
from gclip.tuning.coordinator import Coordinator
from gclip.tuning.objectives import check_objectives, directions, metric_of_study, values_of
from gclip.tuning.outcome import outcome_of
from gclip.tuning.plan import Plan
from gclip.tuning.pruners import make_pruner
from gclip.tuning.samplers import Proposal, make_sampler
from gclip.tuning.space import space_of
from gclip.tuning.sqlite import open_study, read_study, study_file, summary
from gclip.tuning.sqlite_file import UnreadableStudy
from gclip.tuning.trials import best_of, counted, front_of, status_of
from tests.measured import MSE, RETURN
from tests.tuning.pools import PretendedPool

BASE = RunConfig(strategy="norm", split="validation", seed=1000, epochs=3)
SCORE = ("score",)


class OfALoss(PretendedPool):
    """Runs whose loss is least at lr 0.3; those above 0.9 diverge."""

    def end(self, job: Job) -> RunResult:
        lr, status, curve = job.config.lr, "finished", []
        end = MSE.worst if lr > 0.9 else 0.01 + abs(lr - 0.3) / 10
        status = "diverged" if lr > 0.9 else status
        for epoch in (1, 2, 3):
            loss = end * (4 - epoch)
            curve.append({"epoch": epoch, "step": epoch, "score": loss})
            if epoch < 3 and status == "finished" and not self._go_on(job, epoch, loss):
                status = "pruned"
                break
        result = RunResult(
            config=job.config, status=status, metric=MSE, scores={MSE.name: end},  # type: ignore[arg-type]
            curve=curve, seconds=1.0, clipping={"clip_rate": lr / 2},
        )  # fmt: skip
        self.store.save(result)
        return result

    def _go_on(self, job: Job, epoch: int, loss: float) -> bool:
        if self.should_continue is None:
            return True
        progress = Progress(
            epoch=epoch, epochs=3, step=epoch, steps=3, loss=loss, accuracy=None,
            status="running", metric=MSE, score=loss,
        )  # fmt: skip
        return self.should_continue(job, progress)


def run_study(path: Path, trials: int, *, sampler: str = "random", **more: Any) -> None:
    store = Store(path, create=True)
    objectives = more.pop("objectives", SCORE)

    def propose(trial: optuna.Trial) -> RunConfig:
        return BASE.replace(lr=trial.suggest_float("lr", 0.01, 1.0))

    with open_study(path, "loss", {"setting": 1}, objectives, MSE) as study:
        Coordinator(
            study=study, store=store, propose=propose, objectives=objectives, metric=MSE,
            sampler=lambda place: make_sampler(sampler, Proposal(place=place)), **more,
        ).run(OfALoss(store), trials)  # fmt: skip


def test_the_objective_is_called_score_but_where_it_is_accuracy() -> None:
    assert check_objectives(None) == check_objectives(["score"]) == ("accuracy",)
    assert check_objectives(["cost", "score"]) == ("accuracy", "cost")
    assert check_objectives(None, MSE) == SCORE
    assert check_objectives(["clip_rate", "score"], RETURN) == ("score", "clip_rate")
    with pytest.raises(UsageError, match="unknown objective 'accuracy'.*score"):
        check_objectives(["accuracy"], MSE)
    with pytest.raises(UsageError, match="score must be among"):
        check_objectives(["cost"], MSE)
    assert directions(["score", "cost"], MSE) == ["minimize", "minimize"]
    assert directions(["score", "cost"], RETURN) == ["maximize", "minimize"]
    assert directions(["accuracy"]) == ["maximize"]


def test_what_is_no_number_counts_as_the_worst() -> None:
    for score, status in ((math.nan, "finished"), (math.inf, "finished"), (0.001, "diverged")):
        result = RunResult(config=BASE, status=status, metric=MSE, scores={MSE.name: score})  # type: ignore[arg-type]
        assert values_of([result], SCORE) == [MSE.worst]
    good = RunResult(config=BASE, metric=MSE, scores={MSE.name: 0.02})
    assert values_of([good, good], SCORE) == [0.02]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_best_trial_has_the_least_loss(tmp_path: Path, sampler: str) -> None:
    run_study(tmp_path, 25, sampler=sampler)
    path = study_file(tmp_path, "loss")
    with read_study(path) as study:
        trials = counted(study)
        values = [trial.value for trial in trials]
        best = best_of(trials, MSE)
        assert study.direction.name == "MINIMIZE"
        assert metric_of_study(study) == MSE
        assert best is not None
        assert best.value == min(values) == study.best_value
        assert trials[0].user_attrs["scores"] == [trials[0].value]
        for trial in trials:
            assert (status_of(trial) == "diverged") == (trial.params["lr"] > 0.9)
            assert trial.value == pytest.approx(
                MSE.worst if trial.params["lr"] > 0.9 else 0.01 + abs(trial.params["lr"] - 0.3) / 10
            )
        if sampler == "tpe":
            late = [abs(trial.params["lr"] - 0.3) for trial in trials[12:]]
            assert sum(late) / len(late) < 0.15, "a learning sampler goes to where the loss is low"
    found = summary(path)
    assert found["score"] == min(values)
    assert found["metric"]["name"] == MSE.name


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruners_stop_the_trials_whose_loss_is_high(tmp_path: Path, pruner: str) -> None:
    run_study(tmp_path, 30, pruner=make_pruner(pruner, steps=3))
    with read_study(study_file(tmp_path, "loss")) as study:
        distance: dict[str, list[float]] = {"pruned": [], "finished": []}
        for trial in counted(study):
            distance.setdefault(status_of(trial), []).append(abs(trial.params["lr"] - 0.3))
        assert len(distance["pruned"]) >= 5
        mean = {name: sum(each) / len(each) for name, each in distance.items() if each}
        assert mean["pruned"] > mean["finished"]


def test_the_front_of_a_loss_and_its_clip_rate(tmp_path: Path) -> None:
    objectives = ("score", "clip_rate")
    run_study(tmp_path, 20, objectives=objectives)
    with read_study(study_file(tmp_path, "loss")) as study:
        front = front_of(counted(study), objectives, MSE)
        best = best_of(counted(study), MSE)
        assert front[0].number == (best.number if best else None)
        # Beyond the best learning rate, both the loss and the share of clipped steps only grow.
        assert all(trial.params["lr"] <= front[0].params["lr"] for trial in front)
        assert [t.values[0] for t in front] == sorted(t.values[0] for t in front)


def test_a_study_goes_on_only_in_its_direction(tmp_path: Path) -> None:
    run_study(tmp_path, 1)
    with (
        pytest.raises(UsageError, match="begun to minimize its score, but of mean return higher"),
        open_study(tmp_path, "loss", {"setting": 1}, SCORE, RETURN),
    ):
        pass
    path = study_file(tmp_path, "loss")
    import sqlite3

    with sqlite3.connect(path) as database:
        database.execute(
            "update study_user_attributes set value_json = ? where key = 'metric'",
            (json.dumps(RETURN.to_dict()),),
        )
    database.close()
    with pytest.raises(UnreadableStudy, match="minimizes mean return"), read_study(path):
        pass


def test_a_plan_asks_its_task_for_the_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(**more: Any) -> Plan:
        space = space_of("norm", lr_range=(0.01, 1.0))
        return Plan(name="loss", base=BASE, space=space, sampler="random", **more)

    assert planned().objectives == ("accuracy",)
    assert planned().metric == ACCURACY
    assert "objectives" not in planned().settings
    monkeypatch.setattr(plan, "metric_of_task", lambda task: MSE)
    of_a_loss = planned()
    assert of_a_loss.objectives == SCORE
    assert of_a_loss.settings["objectives"] == ["score"]
    assert Plan.of("loss", of_a_loss.settings) == of_a_loss
    with open_study(tmp_path, "loss", of_a_loss.settings, SCORE, of_a_loss.metric) as study:
        store = Store(tmp_path, create=True)
        of_a_loss.coordinator(study, store).run(OfALoss(store), 6)
        outcome = outcome_of(of_a_loss, counted(study))
    assert outcome.metric == MSE
    assert outcome.score == min(outcome.scores)
    shown = inspection.shown(study_file(tmp_path, "loss"), best=3)
    assert [row["score"] for row in shown["best"]] == sorted(outcome.scores)[:3]
    assert shown["metric"] == MSE.to_dict()
    assert "accuracy" not in shown["best"][0]
