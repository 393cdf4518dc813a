"""Studies of a loss and of a return: the best first, their rules, and no word of accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gclip.studies import _report, budget, lr_ceiling, sensitivity
from gclip.studies._budget_notes import notes as budget_notes
from gclip.studies._runs import drawing
from gclip.studies._thresholds import columns, notes, row
from gclip.studies._tuned import Tuned
from gclip.training import RunConfig
from gclip.training.metric import Metric
from gclip.tuning import plan as plans
from gclip.tuning.outcome import Outcome
from gclip.tuning.plan import Plan
from gclip.tuning.space import space_of
from gclip.tuning.trials import Counts
from tests.measured import (
    MEANS,
    METRICS,
    MSE,
    assert_says_nothing_of_accuracy,
    frame,
    scores,
    texts_of,
)
from tests.studies.synthetic import TINY, asked

COUNTS = Counts(trials=25, finished=25, diverged=0, pruned=0, failed=0)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``plan(metric, strategy)`` -> the plan of a task that is measured by it."""

    def made(metric: Metric, strategy: str) -> Plan:
        monkeypatch.setattr(plans, "metric_of_task", lambda task: metric)
        space = space_of(strategy, lr_range=(0.01, 0.5))
        return Plan(name=f"study-{strategy}", base=TINY, space=space, sampler="random")

    return made


def said(rows: Any, headings: dict[str, str]) -> list[str]:
    """All that a table shows."""
    return [*headings, *(str(row.get(key)) for row in rows for key in headings.values())]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_report(metric: Metric, plan: Any, tmp_path: Path) -> None:
    tuned = [
        Tuned(strategy=name, plan=plan(metric, name), counts=COUNTS,
              best=TINY.replace(strategy=name, lr=0.3), score=MEANS[metric.name][name])
        for name in MEANS[metric.name]
    ]  # fmt: skip
    runs = pd.concat(
        [
            frame(metric, diverging="none").assign(form="tuned"),
            frame(metric).assign(form="default"),
        ],
        ignore_index=True,
    )
    rows = _report.table(tuned, runs)
    assert [row["strategy"] for row in rows] == ["agc", "norm", "none"]
    assert rows[0]["score"] == pytest.approx(sum(scores(metric, "agc")) / 12)
    assert rows[0]["vs_norm_evidence"] == "better when trained"
    assert rows[0]["vs_norm_text"].endswith("▲")
    below = _report._notes(tuned, rows, range(12), asked(tmp_path, base=TINY), metric)
    better = next(note for note in below if note.startswith("Better than tuned norm"))
    assert ("agc (-0.0" if metric is MSE else "agc (+1") in better
    figure = drawing("tuned", "report", runs, rows)()
    drawn = list(texts_of(figure))
    assert f"Test {metric.name}" in drawn
    assert_says_nothing_of_accuracy([*said(rows, _report.columns(rows, metric)), *below, *drawn])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_budget(metric: Metric, plan: Any) -> None:
    names = list(MEANS[metric.name])
    found = {
        name: budget.TrialResults(
            study=name, trials=12, diverged=0, scores=tuple(scores(metric, name)),
            best=RunConfig(strategy=name),
        )
        for name in names
    }  # fmt: skip
    runs = frame(metric)
    rows = budget.table(found, runs)
    assert [row["strategy"] for row in rows] == ["agc", "norm", "none"]
    best = min(scores(metric, "agc")) if metric is MSE else max(scores(metric, "agc"))
    assert rows[0]["best_of_all"] == pytest.approx(best)
    assert rows[0]["none_evidence"] == "better"
    below = budget_notes(rows, {"none": plan(metric, "none")}, range(12), 12, "test", metric)
    assert any(note.startswith("Worth its tuning here: better than tuned none") for note in below)
    runs = runs.assign(form="tuned")
    drawn = list(texts_of(drawing("tuned", "budget", runs, rows)()))
    shown = said(rows, budget.columns(rows, 12, "test", metric))
    assert_says_nothing_of_accuracy([*shown, *below, *drawn])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_highest_learning_rate_that_trains(metric: Metric) -> None:
    good = frame(metric, 4)
    # A hundredth of the way to the best is not a quarter of it.
    bad = good.assign(score=metric.worst + 0.01 * (good["score"] - metric.worst))
    runs = pd.concat([good.assign(rate=0.1), good.assign(rate=0.2), bad.assign(rate=0.4)])
    rows = lr_ceiling.table(runs.reset_index(drop=True))
    assert {row["ceiling"] for row in rows} == {0.2}
    assert [row["strategy"] for row in rows] == ["agc", "norm", "none"]
    assert {row["best_lr"] for row in rows} == {0.1}
    below = lr_ceiling._notes(runs, rows)
    shown = [text for text in said(rows, lr_ceiling.columns(metric)) if text != "clipped %"]
    assert f"best {metric.name}" in shown
    assert_says_nothing_of_accuracy([*shown, *below])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_plateau_around_the_best_threshold(metric: Metric) -> None:
    one = frame(metric, 4)
    way = one["score"] - metric.worst
    parts = [
        one.assign(value=value, threshold="max_norm", score=metric.worst + share * way)
        for value, share in ((0.1, 0.5), (1.0, 0.99), (2.0, 1.0), (4.0, 0.9))
    ]
    runs = pd.concat(parts, ignore_index=True)
    rows = sensitivity.table(runs, {"agc": 0.1, "norm": 2.0})
    agc = next(row for row in rows if row["strategy"] == "agc")
    assert (agc["best"], agc["plateau_low"], agc["plateau_high"]) == (2.0, 1.0, 2.0)
    below = sensitivity._notes(runs, rows)
    assert any("at the default, on these seeds: agc (" in note for note in below)
    shown = said(rows, sensitivity.columns(metric))
    assert metric.name in shown
    assert_says_nothing_of_accuracy([*shown, *below])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_what_tuning_found(metric: Metric, plan: Any, tmp_path: Path) -> None:
    outcomes = [
        Outcome(plan=plan(metric, name), counts=COUNTS, best=TINY.replace(strategy=name),
                score=MEANS[metric.name][name], number=3)
        for name in ("none", "agc")
    ]  # fmt: skip
    below = notes(outcomes, asked(tmp_path, base=TINY))
    assert any(line.startswith('  gclip train -s "agc"') for line in below), "the best of them"
    alone = notes(outcomes[1:], asked(tmp_path, base=TINY))
    shown = said([row(each) for each in outcomes], columns(outcomes))
    texts = [line for line in (*below, *alone, *shown) if "gclip" not in line]
    assert_says_nothing_of_accuracy(texts)
    assert f"validation {metric.name}" in " ".join(below)
