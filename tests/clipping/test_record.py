"""The record's numbers and verdicts, from sequences whose outcome is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gclip


def run(norms, spec, **settings):
    """Clip one parameter whose gradients have the given norms."""
    w = torch.nn.Parameter(torch.zeros(4))
    clipper = gclip.Clipper([w], spec, **settings)
    for n in norms:
        w.grad = torch.full((4,), float(n) / 2)
        clipper.step()
    return clipper.record


def test_columns():
    rows = run([0.5, 2.0, 4.0, float("nan"), 1.0], "norm(max_norm=1)").arrays()
    np.testing.assert_allclose(rows["norm"], [0.5, 2, 4, np.nan, 1], rtol=1e-6)
    np.testing.assert_allclose(rows["clipped_norm"], [0.5, 1, 1, np.nan, 1], rtol=1e-6)
    np.testing.assert_array_equal(rows["limit"], np.ones(5))
    np.testing.assert_array_equal(rows["clipped"], [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(rows["finite"], [1, 1, 1, 0, 1])


@pytest.mark.parametrize(
    ("norms", "verdict", "clip_rate"),
    [
        ([0.5] * 1000, "never clips", 0.0),
        ([0.5] * 950 + [2.0] * 50, "safety net", 0.05),
        ([0.5] * 500 + [2.0] * 500, "step-size limiter", 0.5),
        ([0.5] * 5 + [2.0] * 995, "always on", 0.995),
        ([1.005] * 1000, "safety net", 1.0),  # clipped at every step, yet by half a percent
    ],
)
def test_verdicts(norms, verdict, clip_rate):
    summary = run(norms, "norm(max_norm=1)").summary()
    assert summary.verdict == verdict
    assert summary.clip_rate == pytest.approx(clip_rate)
    assert summary.steps == len(norms)
    assert summary.norm_quantiles[0.5] == pytest.approx(float(np.median(norms)), rel=1e-6)
    assert verdict in str(summary)


def test_a_clamp_is_recorded_by_the_norm_of_everything():
    w = torch.nn.Parameter(torch.zeros(2))
    clipper = gclip.Clipper([w], "value(clip_value=1)")
    w.grad = torch.tensor([3.0, 0.5])
    clipper.step()
    rows = clipper.record.arrays()
    assert rows["norm"][0] == pytest.approx(np.hypot(3, 0.5))
    assert rows["clipped_norm"][0] == pytest.approx(np.hypot(1, 0.5))
    assert rows["clipped"][0] == 1


def test_unequal_bounds_record_what_was_really_cut():
    w = torch.nn.Parameter(torch.zeros(2))
    clipper = gclip.Clipper([w], "value(clip_value=1, lower=-0.1)")
    for grad, cut in (([0.9, 0.0], False), ([0.0, -0.2], True), ([1.1, 0.0], True)):
        w.grad = torch.tensor(grad)
        assert clipper.step().clipped.item() is cut
        assert w.grad.tolist() == pytest.approx(np.clip(grad, -0.1, 1.0).tolist())


def test_nothing_recorded_when_not_asked():
    assert len(run([1, 2, 3], "norm", record=False)) == 0


def test_before_the_first_step():
    summary = run([], "norm").summary()
    assert (summary.steps, summary.verdict) == (0, "never clips")
