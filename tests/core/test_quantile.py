"""The history's quantiles are exactly NumPy's, through every level and with gaps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gclip.core import quantile


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("window", [None, 1, 10, 64])
@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_equal_to_numpy(q, window, gaps):
    rng = np.random.default_rng(0)
    steps = 1500 if window is None else 200
    drift = 3 * np.sin(np.arange(steps) / 200)[:, None]
    norms = np.exp(rng.normal(size=(steps, 2)) + drift).astype(np.float32)
    there = rng.random((steps, 2)) < 0.9 if gaps else np.ones((steps, 2), bool)
    kept = quantile.empty(torch.zeros(2), q, window)
    for t in range(steps):
        found = quantile.quantile(kept, extra=torch.from_numpy(norms[t]))
        past = [norms[:t, g][there[:t, g]] for g in range(2)]
        if window is not None:
            past = [p[len(p) - min(window - 1, len(p)) :] for p in past]
        wanted = [np.quantile(np.append(past[g], norms[t, g]).astype(float), q) for g in range(2)]
        np.testing.assert_allclose(found.numpy(), wanted, rtol=3e-6, err_msg=f"step {t}")
        valid = torch.from_numpy(there[t]) if gaps else None
        kept = quantile.push(kept, torch.from_numpy(norms[t]), valid)


def test_runs_side_by_side_equal_each_alone():
    norms = torch.rand(300, 3, 2, generator=torch.Generator().manual_seed(0))
    together = quantile.empty(torch.zeros(3, 2), 0.3)
    alone = [quantile.empty(torch.zeros(2), 0.3) for _ in range(3)]
    for step in norms:
        both = quantile.quantile(together, extra=step)
        each = torch.stack(
            [quantile.quantile(h, extra=n) for h, n in zip(alone, step, strict=True)]
        )
        assert torch.equal(both, each)
        together = quantile.push(together, step)
        alone = [quantile.push(h, n) for h, n in zip(alone, step, strict=True)]


def test_sorted_work_per_step_grows_with_the_logarithm(monkeypatch):
    """How many numbers are sorted per step: a count, not a time."""
    counted = 0
    original = quantile._in_order

    def in_order(values):
        nonlocal counted
        counted += values.shape[-1]
        return original(values)

    monkeypatch.setattr(quantile, "_in_order", in_order)
    kept = quantile.empty(torch.zeros(1), 0.1)
    marks = {}
    for t in range(1, 65_537):
        kept = quantile.push(kept, torch.tensor([float(t % 977)]))
        if t in (1024, 8192, 65_536):
            marks[t] = counted / t
    assert marks[8192] < marks[1024] + 120
    assert marks[65_536] < marks[8192] + 120


def test_nothing_seen_means_no_limit():
    kept = quantile.empty(torch.zeros(2), 0.5)
    assert quantile.quantile(kept).tolist() == [float("inf")] * 2
    kept = quantile.push(kept, torch.ones(2), torch.tensor([True, False]))
    assert quantile.quantile(kept).tolist() == [1.0, float("inf")]
