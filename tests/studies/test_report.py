"""Reports: winners and defaults on fresh seeds, paired; studies shown and exported."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gclip.errors import UsageError
from gclip.execution import Event, Execution
from gclip.results import Store
from gclip.studies import _report, thresholds
from gclip.studies._tuned import Tuned, tuned_in
from gclip.training import RunConfig, task_defaults
from gclip.tuning.inspection import importances, rows, shown
from gclip.tuning.plan import Plan
from gclip.tuning.space import space_of
from gclip.tuning.sqlite import begin, find_study, open_study
from gclip.tuning.study import Request
from gclip.tuning.trials import Counts

TINY = RunConfig(fraction=0.1, epochs=1, batch_size=64)


def tuned(strategy: str, best: str, lr: float, trials: int = 25, **more: Any) -> Tuned:
    plan = Plan(
        name=f"study-{strategy}", base=TINY,
        space=space_of(strategy, lr_range=(0.01, 0.5)), sampler="random", **more,
    )  # fmt: skip
    return Tuned(
        strategy=strategy,
        plan=plan,
        counts=Counts(trials=trials, finished=trials, diverged=0, pruned=0, failed=0),
        best=plan.base.replace(strategy=best, lr=lr),
        score=0.9,
    )


def made_up(means: dict[tuple[str, str], float], seeds: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "strategy": strategy, "form": form, "seed": seed, "status": "finished",
                "accuracy": mean + 0.01 * random.normal(), "clip_rate": 0.5,
            }
            for (strategy, form), mean in means.items()
            for seed in range(seeds)
        ]
    )  # fmt: skip


MEANS = {
    ("none", "tuned"): 0.80, ("none", "default"): 0.50,
    ("norm", "tuned"): 0.85, ("norm", "default"): 0.849,
    ("agc", "tuned"): 0.90, ("agc", "default"): 0.901,
}  # fmt: skip
FOUND = [
    tuned("agc", "agc(clip_factor=0.1)", 0.2),
    tuned("none", "none", 0.03),
    tuned("norm", "norm(max_norm=0.5)", 0.1),
]


def test_the_table_is_paired_and_corrected_over_all_of_it() -> None:
    runs = made_up(MEANS, 12)
    table = _report.table(FOUND, runs)
    assert [row["strategy"] for row in table] == ["agc", "norm", "none"]
    agc, norm, none = table

    def scores(strategy: str, form: str) -> Any:
        mine = runs[(runs["strategy"] == strategy) & (runs["form"] == form)]
        return mine.sort_values("seed")["accuracy"].to_numpy()

    differences = scores("agc", "tuned") - scores("norm", "tuned")
    assert agc["vs_norm_difference"] == pytest.approx(differences.mean())
    half = stats.t.ppf(0.975, 11) * differences.std(ddof=1) / np.sqrt(12)
    assert agc["vs_norm_high"] - agc["vs_norm_low"] == pytest.approx(2 * half)
    assert agc["accuracy"] == pytest.approx(scores("agc", "tuned").mean())
    assert agc["default_accuracy"] == pytest.approx(scores("agc", "default").mean())
    # Twelve pairs that all point the same way: 2/2^12 for each; six comparisons in the table.
    assert agc["vs_none_p"] == pytest.approx(2 / 2**12, rel=0.2)
    compared = [row[f"vs_{o}_p"] for row in table for o in _report.COMPARED]
    assert sum(p is not None for p in compared) == 6
    assert agc["vs_none_p_holm"] >= 3 * agc["vs_none_p"]
    assert (agc["vs_norm_evidence"], agc["vs_none_evidence"]) == ("better", "better")
    assert agc["vs_default_evidence"] == "no difference shown"
    assert norm["vs_none_evidence"] == "better"
    assert norm["vs_norm_pairs"] is None
    assert none["vs_norm_pairs"] is None
    assert none["vs_default_evidence"] == "better"
    assert agc["vs_norm_text"].endswith(" ▲")
    assert (agc["trials"], agc["n"], agc["default_n"]) == (25, 12, 12)
    assert "trials" not in _report.columns(table)


def test_worse_is_marked_and_diverged_runs_count_at_chance() -> None:
    runs = made_up({**MEANS, ("agc", "tuned"): 0.7}, 10)
    runs.loc[(runs["strategy"] == "none") & (runs["seed"] == 3), "status"] = "diverged"
    table = {row["strategy"]: row for row in _report.table(FOUND, runs)}
    # A run of the table diverged, so nothing is claimed about means over all seeds.
    assert table["agc"]["vs_norm_evidence"] == "worse when trained"
    assert table["none"]["trained"] == 9
    assert table["agc"]["vs_norm_text"].endswith(" ▼")
    assert (table["none"]["diverged"], table["none"]["n"]) == (1, 10)
    assert "div." in _report.columns(list(table.values()))


def test_fewer_than_ten_seeds_support_no_claim() -> None:
    table = _report.table(FOUND, made_up(MEANS, 9))
    found = {row[f"vs_{o}_evidence"] for row in table for o in _report.COMPARED}
    assert found == {None, "too few seeds to tell"}


def test_a_default_that_is_the_winner_is_not_compared_with_itself() -> None:
    same = tuned("agc", "agc", 0.15)
    runs = made_up(MEANS, 10)
    [row] = _report.table([same], runs)
    assert same.default.lr == 0.15  # the task's
    assert row["vs_default_pairs"] is None


Ask = Callable[..., Request]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "runs"
    request = Request(
        base=TINY, store=Store(path, create=True), strategies=("none", "agc"), trials=9,
        sampler="random", execution=Execution(device="cpu", workers=1),
    )  # fmt: skip
    thresholds.run(request)
    return path


def asked(path: Path, **more: Any) -> Request:
    names = Execution.__dataclass_fields__
    how = {name: more.pop(name) for name in list(more) if name in names}
    execution = Execution(**{"device": "cpu", "workers": 1, **how})
    return Request(base=TINY, store=Store(path), execution=execution, **more)


def test_trials_get_the_folder_of_their_study_and_none_of_their_own(store: Path) -> None:
    from gclip import figures

    groups = {group.folder: group for group in figures.groups(store)}
    assert set(groups) == {"thresholds-agc-digits", "thresholds-none-digits"}
    agc = groups["thresholds-agc-digits"]
    assert len(agc.keys) == 9
    found = agc.read(Store(store))
    assert len(found.trials) == len(found.runs) == 9
    assert found.trials["best"].sum() == 1
    applying = {name for name in figures.names() if figures.applies(name, found)}
    # Importances need scores that differ.
    assert applying - {"importances"} == {"budget", "slices", "stability_map"}


def test_a_report_trains_winners_and_defaults_once(store: Path) -> None:
    events: list[Event] = []
    request = asked(store, seeds=(0, 1), listener=events.append)
    found = tuned_in(store)
    answer = _report.run(request, found)
    trained = [event.config for event in events if event.kind == "done"]
    assert len(trained) == _report.run_count(request, found) == 8
    assert {config.split for config in trained} == {"test"}
    assert {config.seed for config in trained} == {0, 1}
    best = {
        row["strategy"]: row for row in shown(find_study(store, "thresholds-agc-digits"))["best"]
    }
    [agc] = [row for row in answer.rows if row["strategy"] == "agc"]
    assert agc["tuned"] in best
    assert agc["default_lr"] == 0.15
    assert {config.lr for config in trained if config.strategy == "agc"} >= {0.15}
    assert any("Not compared with tuned norm" in note for note in answer.notes)
    [hint] = [note for note in answer.notes if "Not compared" in note]
    assert "gclip study run thresholds -s norm --trials 9 --sampler random" in hint
    assert "--fraction 0.1" in hint
    assert any("too few seeds to tell" in note for note in answer.notes)
    events.clear()
    assert list(_report.run(request, found).rows) == list(answer.rows)
    assert {event.kind for event in events} == {"cached"}
    figure = answer.figures["report"]()
    assert len(figure.axes) == 2


def test_what_makes_no_report_is_said(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no study in .* to report; begin with: gclip study run"):
        tuned_in(tmp_path)
    with pytest.raises(UsageError, match="did you mean 'thresholds-agc-digits'"):
        tuned_in(store, ["threshold-agc-digits"])
    with pytest.raises(UsageError, match="tuned with the seed 1000, so no report may use it"):
        _report.run(asked(store, seeds=(0, 1000)), tuned_in(store))
    for base, name in ((TINY, "again"), (TINY.replace(epochs=2), "longer")):
        plan = Plan(name=name, base=base, space=space_of("agc", lr_range=(0.01, 0.1)))
        other = tmp_path / name
        with open_study(other, name, plan.settings) as study:
            study.tell(study.ask(), values=None, state=_fail())
        with pytest.raises(UsageError, match=f"{name} has no complete trial"):
            tuned_in(other)


def _fail() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


def test_studies_that_do_not_belong_together(tmp_path: Path) -> None:
    for base, name in ((TINY, "a"), (TINY, "b"), (TINY.replace(epochs=2), "c")):
        plan = Plan(name=name, base=base, space=space_of("agc", lr_range=(0.01, 0.1)))
        with open_study(tmp_path, name, plan.settings) as study:
            trial = study.ask()
            config = plan.propose(trial)
            import json

            trial.set_user_attr("config", json.loads(config.to_json()))
            study.tell(trial, 0.5)
    with pytest.raises(UsageError, match="different settings, so they make no one table: a, b; c"):
        tuned_in(tmp_path)
    with pytest.raises(UsageError, match=r"a and b tuned the same strategy, agc; name one"):
        tuned_in(tmp_path, ["a", "b"])
    assert [each.plan.name for each in tuned_in(tmp_path, ["a"])] == ["a"]


def test_strategies_that_skip_steps_are_reported_beside_others() -> None:
    from gclip.studies._tuned import _kind

    bases = [TINY.replace(strategy=name) for name in ("norm", "ratio_skip")]
    assert bases[0].stepping != bases[1].stepping
    assert _kind(bases[0]) == _kind(bases[1])


def test_a_default_trains_at_the_learning_rate_of_its_task(tmp_path: Path) -> None:
    """A search of the learning rate keeps none; the task's is not the optimizer's."""
    _tuned(tmp_path, task_defaults("gan-digits"), "gan")
    [found] = tuned_in(tmp_path)
    assert found.default.lr == task_defaults("gan-digits").lr != RunConfig().lr


def _tuned(folder: Path, base: Any, name: str) -> Path:
    """A study of agc with one complete trial; returns its file."""
    import json

    plan = Plan(name=name, base=base, space=space_of("agc", lr_range=(0.01, 0.1)))
    with open_study(folder, name, plan.settings) as study:
        trial = study.ask()
        trial.set_user_attr("config", json.loads(plan.propose(trial).to_json()))
        study.tell(trial, 0.5)
    return find_study(folder, name)


def test_a_report_is_of_the_question_that_was_worked_on_last(tmp_path: Path) -> None:
    """``budget`` tunes the same strategies as ``thresholds``, and neither is in the other's way."""
    said: list[str] = []
    older = _tuned(tmp_path, TINY, "thresholds-agc-digits")
    newer = _tuned(tmp_path, TINY, "budget-agc-digits")
    os.utime(older, ns=(1, 1))
    os.utime(newer, ns=(2, 2))
    found = tuned_in(tmp_path, on_left_out=said.append)
    assert [each.plan.name for each in found] == ["budget-agc-digits"]
    assert said == [
        "what thresholds tuned, which is another question: gclip study report thresholds-agc-digits"
    ]
    os.utime(older, ns=(3, 3))
    found = tuned_in(tmp_path)
    assert [each.plan.name for each in found] == ["thresholds-agc-digits"]
    # Named together they are asked for together, and make no one table.
    with pytest.raises(UsageError, match="tuned the same strategy, agc; name one"):
        tuned_in(tmp_path, ["thresholds-agc-digits", "budget-agc-digits"])


def test_rows_of_trials(store: Path) -> None:
    found = rows(find_study(store, "thresholds-agc-digits"))
    assert [row["trial"] for row in found] == list(range(9))
    for row in found:
        assert row["status"] in ("finished", "diverged")
        assert f"clip_factor={row['param_clip_factor']:.4g}"[:16] in row["strategy"] or row["lr"]
        assert row["lr"] == pytest.approx(row["param_lr"], rel=1e-3)
        assert len(row["keys"]) == 64
        assert Store(store).has(row["keys"])
        assert Store(store).load(row["keys"]).accuracy == row["accuracy"]


def test_importances_are_of_the_field_that_mattered() -> None:
    plan = Plan(name="x", base=TINY, space=space_of("agc", lr_range=(0.01, 0.5)))
    study = begin("sqlite:///:memory:", "x", plan.settings)
    random = np.random.default_rng(0)
    for count in range(30):
        if count == 7:
            assert importances(study, plan) is None
        trial = study.ask(plan.space.distributions)
        study.tell(trial, float(np.log(trial.params["lr"])) + 1e-3 * random.normal())
    found = importances(study, plan)
    assert found is not None
    assert list(found) == ["lr", "clip_factor"]
    assert found["lr"] > 0.9
    assert 0.9 < sum(found.values()) <= 1.0


def test_csv_reads_back(store: Path) -> None:
    from gclip.cli import main

    assert callable(main)
    found = rows(find_study(store, "thresholds-none-digits"))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]))
    writer.writeheader()
    writer.writerows(found)
    text.seek(0)
    again = pd.read_csv(text, dtype={"accuracy": str})  # old versions round the last digit
    assert list(again["accuracy"].map(float)) == [row["accuracy"] for row in found]
