"""Divergence is seen at the same step, however seldom one looks."""

from __future__ import annotations

import math

import pytest
import torch

from gclip.clipping import async_copy
from gclip.training import RunConfig, load_dataset
from gclip.training.divergence import PATIENCE, DivergenceMonitor
from gclip.training.fleet.run import FleetRun

NAN = math.nan


def watched(losses, finite, every):
    watch = DivergenceMonitor(torch.device("cpu"))
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


# -- a GPU is not waited for ---------------------------------------------------------------------


class Event:
    """A copy that is not there before it is let through."""

    there = False

    def query(self) -> bool:
        return self.there

    def synchronize(self) -> None:
        self.there = True


def test_values_are_seen_when_they_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []

    def mark(device: torch.device) -> Event:
        events.append(Event())
        return events[-1]

    monkeypatch.setattr(async_copy, "mark", mark)
    watch, fine = DivergenceMonitor(torch.device("cuda")), torch.ones(1, dtype=torch.bool)
    losses = [float(step) for step in range(150)]
    losses[70] = math.nan
    for loss in losses[:100]:
        assert watch.note(torch.tensor(loss), fine)
    # The first 64 are on their way; nobody waited, and the next ones wait for their turn.
    assert (len(events), events[0].there, watch.losses) == (1, False, [])
    events[0].there = True
    assert watch.note(torch.tensor(losses[100]), fine)
    assert watch.losses == losses[:64]
    assert watch.note(torch.tensor(losses[101]), fine)  # these 38 are too few to be sent
    assert len(events) == 1
    assert not watch.look()
    assert (watch.diverged_at, watch.losses) == (70, losses[:70])
    assert events[-1].there


def test_a_fleet_sees_its_losses_when_they_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []

    def mark(device: torch.device) -> Event:
        events.append(Event())
        return events[-1]

    monkeypatch.setattr(async_copy, "mark", mark)
    config = RunConfig(strategy="norm", lr=1e-4)
    run = FleetRun([config, config.replace(seed=1)], load_dataset("digits"), torch.device("cpu"))
    run.device = torch.device("cuda")  # only for whether to wait
    fine = torch.ones(2, dtype=torch.bool)
    run._unseen = [(torch.tensor([1.0, 2.0]), fine), (torch.tensor([3.0, math.inf]), fine)]
    assert run.look(last=False)
    assert [event.there for event in events] == [False, False]
    assert run.members[0].history.loss is None
    run._unseen = [(torch.tensor([5.0, 6.0]), fine)]
    assert run.look(last=False)  # the first have had 64 steps of time
    assert (run.members[0].history.loss, run.members[1].diverged_at) == (3.0, 1)
    assert run.look()
    assert run.members[0].history.loss == 5.0
