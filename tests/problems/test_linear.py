"""Straight lines: the closed form, and how far descent is from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gclip.problems.linear import Linear, least_squares
from gclip.training import RunConfig, train
from gclip.training.problem import Source


def test_the_points_lie_around_the_line() -> None:
    inputs, targets, *_ = Linear(slope=-1.5, intercept=0.25, noise=0.0).data(Source())
    assert inputs.shape == (400, 1)
    torch.testing.assert_close(targets, -1.5 * inputs[:, 0] + 0.25)


def test_the_noise_has_the_deviation_that_was_asked_for() -> None:
    inputs, targets, *_ = Linear(noise=0.5, count=5000).data(Source())
    left = targets - 3 * inputs[:, 0] - 2
    assert left.std() == pytest.approx(0.5, rel=0.03)
    assert left.mean() == pytest.approx(0.0, abs=0.03)


def test_least_squares_is_that_of_numpy() -> None:
    inputs, targets, *_ = Linear().data(Source())
    slope, intercept = np.polyfit(inputs[:, 0].double().numpy(), targets.double().numpy(), 1)
    np.testing.assert_allclose(least_squares(inputs, targets).numpy(), [slope, intercept])


def test_least_squares_by_hand() -> None:
    # Through (0, 1), (1, 3) and (2, 2): the slope is 1/2, the mean (1, 2) lies on the line.
    found = least_squares(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([1.0, 3.0, 2.0]))
    np.testing.assert_allclose(found.numpy(), [0.5, 1.5])


def test_descent_on_whole_batches_comes_to_least_squares() -> None:
    config = RunConfig(task="linear(count=50)", batch_size=40, epochs=300, lr=0.1)
    result = train(config, device="cpu")
    assert result.scores["distance to least squares"] == pytest.approx(0.0, abs=1e-5)
    inputs, targets, test_inputs, test_targets = Linear(count=50).data(Source())
    slope, intercept = least_squares(inputs, targets)
    error = (slope * test_inputs[:, 0] + intercept - test_targets).square().mean()
    assert result.score == pytest.approx(float(error), rel=1e-4)


def test_the_worst_is_that_of_always_answering_0() -> None:
    # E y² = 3²·E x² + 2² + 0.5², x uniform in ±3.
    assert Linear.metric.worst == pytest.approx(9 * 3 + 4 + 0.25)


def test_too_large_a_rate_diverges_without_clipping_and_descends_with_it() -> None:
    free, clipped = (
        train(RunConfig(task="linear", lr=2.0, strategy=each, seed=0, epochs=20), device="cpu")
        for each in ("none", "norm")
    )
    assert free.status == "diverged"
    assert clipped.status == "finished"
