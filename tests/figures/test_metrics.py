"""Figures of a loss and of a return: their own names, limits and directions, and no accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gclip import figures
from gclip.training.metric import Metric
from tests.figures import made_up
from tests.measured import (
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
    assert axes.get_ylabel().replace("\n", " ") == f"Test {metric.name}"
    bottom, top = axes.get_ylim()
    assert bottom <= metric.worst <= top
    assert "diverged" in [text.get_text() for text in axes.texts]
    if metric is MSE:
        assert bottom > -0.01
    assert_says_nothing_of_accuracy(list(texts_of(figure)))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_figures_of_studies(metric: Metric) -> None:
    runs = frame(metric, 4, diverging="none", lr=0.1)
    grid = pd.concat([runs.assign(rate=rate) for rate in (0.1, 0.2)], ignore_index=True)
    ceilings = figures.draw("lr_ceiling", made_up.results("lr_ceiling", runs=grid))
    assert f"Test {metric.name}" in labelled(ceilings)
    varied = pd.concat(
        [runs.assign(value=value, threshold="max_norm") for value in (0.5, 1.0)], ignore_index=True
    )
    sensitivity = figures.draw("sensitivity", made_up.results("sensitivity", runs=varied))
    assert f"Test {metric.name}" in [text.replace("\n", " ") for text in labelled(sensitivity)]
    noise = figures.draw(
        "noise", made_up.results("noise", runs=runs.assign(disturbance="spikes", level=0.1))
    )
    assert f"Test {metric.name}" in labelled(noise)
    trials = made_up.trials(metric)
    searched = made_up.results("budget", trials=trials)
    budget = figures.draw("budget", searched)
    said = [text.replace("\n", " ") for text in labelled(budget)]
    assert f"Validation {metric.name} of the best" in said
    curve = next(line for line in budget.axes[0].lines if len(line.get_xdata()) == 8)
    one, *_, most = curve.get_ydata()
    assert (most < one) == (metric is MSE), "the best of more trials is better"
    slices = figures.draw("slices", searched)
    assert f"Validation {metric.name}" in [text.replace("\n", " ") for text in labelled(slices)]
    for figure in (ceilings, sensitivity, budget, slices):
        assert_says_nothing_of_accuracy(list(texts_of(figure)))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_comparisons(metric: Metric) -> None:
    compared = results(metric, diverging="none")
    forest = figures.draw("forest", compared)
    better = "→" if metric.better == "higher" else "←"
    assert forest.axes[0].get_xlabel() == f"Difference in test {metric.name}, better {better}"
    rows = [label.get_text() for label in forest.axes[0].get_yticklabels()]
    assert rows == ["agc", "norm"], "the best is on top, whichever direction that is"
    profile = figures.draw("performance_profile", compared)
    assert profile.axes[0].get_xlabel() == f"Test {metric.name}"
    ranked = figures.draw("ranks", compared)
    assert ranked.axes[0].get_yticklabels()[0].get_text() == "agc"
    improvement = figures.draw("improvement", compared)
    assert np.asarray(improvement.axes[0].collections[1].get_offsets())[0, 0] == 1.0
    for figure in (forest, profile, ranked):
        words = [t.replace("Nemenyi, 5 %", "").replace("100 %", "") for t in texts_of(figure)]
        assert_says_nothing_of_accuracy([w for w in words if "(%)" not in w])
