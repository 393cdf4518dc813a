"""Samplers and pruners by name: pinned, resumable, and refused in one sentence."""

from __future__ import annotations

import importlib.util
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from gclip.errors import UsageError
from gclip.training import RunConfig, RunResult
from gclip.tuning.indexed_samplers import Grid
from gclip.tuning.objectives import OBJECTIVES, check_objectives, values_of
from gclip.tuning.options import SearchOptions
from gclip.tuning.plan import Plan
from gclip.tuning.pruners import PRUNERS, make_pruner, pruner_named
from gclip.tuning.samplers import SAMPLERS, Proposal, grid_size, make_sampler, sampler_named
from gclip.tuning.space import space_of

HERE = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "cmaes" and importlib.util.find_spec("cmaes") is None,
            reason="the package cmaes is not installed",
        ),
    )
    for name in SAMPLERS
]


def planned(**settings: Any) -> Plan:
    space = space_of("norm", lr_range=(0.01, 1.0))
    return Plan(name="test", base=RunConfig(epochs=3), space=space, **settings)


def check_search(*, epochs: int = 1, **settings: Any) -> None:
    search = SearchOptions(**settings)
    sampler, pruner = sampler_named(search.sampler), pruner_named(search.pruner)
    sampler.check(search)
    pruner.check(search, epochs)


def proposals(plan: Plan, count: int, begun: list[dict[str, Any]] = []) -> list[dict[str, Any]]:  # noqa: B006
    """The parameters of `count` trials, of which `begun` were made before, by another process."""
    study = optuna.create_study(direction="maximize")
    distributions = plan.space.distributions
    for params in begun:
        value = params["lr"]
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=value)
        )
    for number in range(len(begun), count):
        study.sampler = plan.make_sampler(number)
        trial = study.ask()
        plan.propose(trial)
        study.tell(trial, trial.params["lr"])
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", HERE)
def test_a_sampler_proposes_the_same_again_and_never_the_same_twice(name: str) -> None:
    plan = planned(sampler=name, points=4 if name == "grid" else None)
    found = proposals(plan, 12)
    assert found == proposals(plan, 12)
    assert len({tuple(params.values()) for params in found}) == 12
    other = proposals(planned(sampler=name, seed=1, points=4 if name == "grid" else None), 12)
    assert other != found


@pytest.mark.parametrize("name", ["tpe", "gp", "random"])
def test_a_sampler_needs_nothing_but_the_study(name: str) -> None:
    plan = planned(sampler=name)
    whole = proposals(plan, 13)
    resumed = proposals(plan, 13, begun=whole[:11])
    assert resumed == whole


def test_the_arguments_are_those_that_are_said() -> None:
    found = make_sampler("tpe", Proposal(place=1))
    assert isinstance(found, optuna.samplers.TPESampler)
    assert found._constant_liar is True
    assert found._multivariate is True
    assert found._n_startup_trials == 10
    halton = make_sampler("qmc", Proposal(place=5, study_seed=3))
    assert isinstance(halton, optuna.samplers.QMCSampler)
    assert (halton._scramble, halton._seed) == (True, 3)
    classes = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
        "wilcoxon": optuna.pruners.WilcoxonPruner,
    }
    assert {name: type(make_pruner(name, steps=9)) for name in PRUNERS} == classes


def test_qmc_covers_the_space_more_evenly_than_chance() -> None:
    # Of 16 points of a Sobol sequence, each half of an axis has 8 (the first is drawn by chance).
    lrs = [params["lr"] for params in proposals(planned(sampler="qmc"), 17)[1:]]
    assert abs(sum(lr < 0.1 for lr in lrs) - 8) <= 1


def test_a_grid_is_made_whole_once_whatever_is_lost(tmp_path: object) -> None:
    values = {"x": (1, 2, 3), "y": ("a", "b")}
    study = optuna.create_study(sampler=Grid(values, seed=0))

    def suggest(trial: optuna.Trial) -> tuple[Any, ...]:
        return (trial.suggest_int("x", 1, 3), trial.suggest_categorical("y", ["a", "b"]))

    seen = [suggest(study.ask()) for _ in range(3)]
    # One is lost before anything was suggested, one after a single suggestion.
    for lost, params in ((study.ask(), {}), (study.ask(), None)):
        if params is None:
            params = {"x": lost.suggest_int("x", 1, 3)}
        study.enqueue_trial(params, user_attrs={"replaces": lost.number})
        study.tell(lost, state=TrialState.FAIL)
    seen += [suggest(study.ask()) for _ in range(3)]
    assert sorted(seen) == [(x, y) for x in (1, 2, 3) for y in ("a", "b")]
    with pytest.raises(UsageError, match="6 points, and all were tried"):
        suggest(study.ask())


def test_the_size_of_a_grid_bounds_the_trials() -> None:
    space = space_of("norm", lr_range=(0.01, 1.0), overrides={"scope": "unit|tensor"})
    assert grid_size(space, 3) == 3 * 3 * 2
    plan = planned(sampler="grid", points=3)
    assert plan.most == 9
    plan.check_trials(9)
    with pytest.raises(UsageError, match="the grid of norm has 9 points, but 10 trials"):
        plan.check_trials(10)
    assert planned().most is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampler": "tpo"}, "did you mean 'tpe'?"),
        ({"sampler": "tpe", "pruner": "medain"}, "did you mean 'median'?"),
        ({"sampler": "tpe", "points": 3}, "points belong to the sampler grid"),
        (
            {"sampler": "grid", "points": 1},
            "points must be a whole number from 2 to 10,000",
        ),
        (
            {"sampler": "tpe", "pruner": "wilcoxon", "seeds_per_trial": 4},
            "at least 5 seeds per trial, but got 4",
        ),
        ({"sampler": "tpe", "pruner": "median", "epochs": 1}, "a trial has only one"),
        (
            {"sampler": "tpe", "pruner": "median", "objectives": ("accuracy", "cost")},
            "the pruner median judges one objective",
        ),
    ],
)
def test_what_cannot_be_searched_is_known_before(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_search(**{"epochs": 3, **settings})
    assert said in str(caught.value)


def test_cmaes_says_what_it_needs_and_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def find_spec(name: str) -> object:
        return object() if name in found else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(UsageError, match="needs the package cmaes, .* pip install cmaes"):
        check_search(sampler="cmaes")
    found.append("cmaes")
    check_search(sampler="cmaes")
    with pytest.raises(UsageError, match="the sampler cmaes seeks one objective"):
        check_search(sampler="cmaes", objectives=("accuracy", "cost"))


def test_a_plan_reads_back_from_its_settings() -> None:
    overrides = {"scope": "unit|tensor", "max_norm": "0.1..0.12345678:linear", "lr": "0.05"}
    for plan in (
        planned(),
        planned(sampler="grid", points=3, objectives=("cost", "accuracy")),
        Plan(
            name="test",
            base=RunConfig(epochs=2, fraction=0.5),
            space=space_of("norm(p=1)", overrides=overrides),
            pruner="median",
            seeds_per_trial=3,
            seed=4,
        ),
    ):
        again = Plan.of("test", plan.settings)
        assert again.settings == plan.settings
        assert again.space.distributions == plan.space.distributions
        assert (again.seeds, again.most) == (plan.seeds, plan.most)
        assert proposals(again, 3) == proposals(plan, 3) if plan.seed == 0 else True
    assert plan.seeds == (1004, 1005, 1006)
    assert (plan.base.seed, plan.base.split, plan.base.lr) == (1004, "validation", 0.05)
    assert plan.base.strategy == "norm(p=1)"


def result(status: Any = "finished", **more: Any) -> RunResult:
    values = {"accuracy": 0.8, "seconds": 3.0, "clipping": {"clip_rate": 0.5}, **more}
    return RunResult(config=RunConfig(epochs=4), status=status, **values)


def test_a_diverged_run_is_worth_the_worst_there_is() -> None:
    names = tuple(OBJECTIVES)
    assert names == ("accuracy", "clip_rate", "cost")
    assert values_of([result()], names) == [0.8, 0.5, 3.0]
    broken = result("diverged", accuracy=0.1, seconds=1.0, curve=[{"epoch": 2}])
    # Two of four epochs in one second: the whole run would have taken two.
    assert values_of([broken], names) == [0.1, 1.0, 2.0]
    assert values_of([broken], names, dearest=9.0) == [0.1, 1.0, 9.0]
    assert values_of([result(), broken], names) == pytest.approx([0.45, 0.75, 2.5])
    assert values_of([result("diverged", accuracy=float("nan"), clipping={})], names)[0] == 0.0


def test_objectives_are_known_and_accuracy_is_among_them() -> None:
    assert check_objectives(["cost", "accuracy"]) == ("accuracy", "cost")
    for wrong, said in (
        (["clip_rate"], "accuracy must be among"),
        (["acuracy"], "did you mean 'accuracy'"),
        (["accuracy", "accuracy"], "twice"),
    ):
        with pytest.raises(UsageError, match=said):
            check_objectives(wrong)
