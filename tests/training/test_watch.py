"""Divergence is seen at the same step, however seldom one looks."""

from __future__ import annotations

import math

import pytest
import torch

from gclip.training.watch import PATIENCE, Watch

NAN = math.nan


def watched(losses, finite, every):
    watch = Watch(torch.device("cpu"))
    watch._every = every
    for loss, ok in zip(losses, finite, strict=True):
        if not watch.note(torch.tensor(loss), torch.tensor([ok])):
            break
    watch.look()
    return watch


@pytest.mark.parametrize("every", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("losses", "finite", "at", "kept"),
    [
        ([1.0, 2.0, 3.0], [True] * 3, None, 3),
        ([1.0, 2.0, NAN, 3.0], [True] * 4, 2, 2),
        ([math.inf], [True], 0, 0),
        ([1.0] * 60, [True] * 5 + [False] * 55, 5 + PATIENCE, 5 + PATIENCE),
        ([1.0] * 60, ([False] * (PATIENCE - 1) + [True]) * 3, None, 60),
    ],
)
def test_where_a_run_diverges(losses, finite, at, kept, every):
    watch = watched(losses, finite, every)
    assert (watch.diverged_at, len(watch.losses)) == (at, kept)
    assert bool(watch.reason) == (at is not None)
