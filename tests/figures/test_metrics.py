"""Figures of a loss and of a return: their own names, limits and directions, and no accuracy."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from gclip import figures
from gclip.figures import _budget, _lr_ceiling, _report, _sensitivity
from gclip.results.budget import budget_curve
from gclip.studies import lr_ceiling
from gclip.training import RunConfig
from gclip.training.metric import Metric
from tests.measured import (
    MEANS,
    METRICS,
    MSE,
    assert_says_nothing_of_accuracy,
    frame,
    results,
    scores,
    texts_of,
)


def labelled(figure: Any) -> list[str]:
    """The labels of all axes, and those of the whole figure."""
    figures_too = [figure._supylabel, figure._supxlabel]
    own = [text.get_text() for text in figures_too if text is not None]
    return [
        *own,
        *(axes.get_xlabel() for axes in figure.axes),
        *(a.get_ylabel() for a in figure.axes),
    ]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_final_scores(metric: Metric) -> None:
    figure = figures.draw("scores", results(metric, diverging="none"))
    axes = figure.axes[0]
    assert axes.get_xlabel() == f"Test {metric.name}"
    assert [label.get_text().split()[0] for label in axes.get_yticklabels()] == [
        *("agc", "norm", "none")
    ]
    low, high = axes.get_xlim()
    every = [*scores(metric, "agc", 4), metric.worst]
    assert low < min(every)
    assert high > max(every)
    if metric is MSE:
        assert low > -0.01, "a mean squared error is not below 0"
    assert f"Final test {metric.name} by strategy" in figure.get_suptitle()
    assert_says_nothing_of_accuracy(list(texts_of(figure)))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_learning_curves(metric: Metric) -> None:
    figure = figures.draw("learning_curves", results(metric, diverging="none"))
    axes = figure.axes[0]
    assert axes.get_ylabel() == f"Test {metric.name}"
    bottom, top = axes.get_ylim()
    assert bottom <= metric.worst <= top
    assert "diverged" in [text.get_text() for text in axes.texts]
    if metric is MSE:
        assert bottom > -0.01
    assert_says_nothing_of_accuracy(list(texts_of(figure)))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_figures_of_studies(metric: Metric) -> None:
    runs = frame(metric, 4, diverging="none")
    grid = pd.concat([runs.assign(rate=rate) for rate in (0.1, 0.2)], ignore_index=True)
    ceilings = _lr_ceiling.draw(grid, lr_ceiling.table(grid))
    assert f"Validation {metric.name}" in labelled(ceilings)
    varied = pd.concat(
        [runs.assign(value=value, threshold="max_norm") for value in (0.5, 1.0)], ignore_index=True
    )
    sensitivity = _sensitivity.draw(varied, {"agc": None, "norm": 1.0})
    assert f"Test {metric.name}" in labelled(sensitivity)
    curves = {
        name: budget_curve(scores(metric, name), metric.better) for name in MEANS[metric.name]
    }
    budget = _budget.curves(curves, RunConfig(), metric)
    assert f"Validation {metric.name} of the best" in labelled(budget)
    line = budget.axes[0].lines[-1].get_ydata()
    assert (line[-1] < line[0]) == (metric is MSE), "the best of more trials is better"
    trials = pd.DataFrame(
        {"lr": [0.1, 0.2], "score": scores(metric, "agc", 2), "status": "finished"}
    )
    slices = _report.slices(trials, {"lr": False}, "a study", metric)
    assert slices.axes[0].get_ylabel() == f"Validation {metric.name}"
    for figure in (ceilings, sensitivity, budget, slices):
        assert_says_nothing_of_accuracy(list(texts_of(figure)))
