"""Divergence is seen at the same step, however seldom one looks."""

from __future__ import annotations

import math

import pytest
import torch

from gclip.cli.train import report
from gclip.clipping import async_copy
from gclip.clipping.clipper import Clipper
from gclip.clipping.nonfinite import FirstNonfinite
from gclip.training import RunConfig, RunResult, load_dataset, train
from gclip.training.divergence import PATIENCE, DivergenceMonitor
from gclip.training.fleet.run import FleetRun
from gclip.training.fleet.train import train_fleet
from gclip.training.models import build
from gclip.training.player_records import PlayerRecords
from gclip.training.run import Run
from tests.training import toy_problem  # noqa: F401 - registers the problems toy-line and toy-pair

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


# -- where it was not finite ---------------------------------------------------------------------

WILD = RunConfig(epochs=1, fraction=0.1, batch_size=32, lr=1e30)


def test_a_run_says_whose_gradients_were_not_finite_first() -> None:
    digits = load_dataset("digits")
    result = train(WILD, dataset=digits, device="cpu")
    found = result.clipping["first_not_finite"]
    assert result.status == "diverged"
    assert 0 < found["step"] <= result.stopped_at
    assert set(found["parameters"]) <= {name for name, _ in build("lenet").named_parameters()}
    assert found["parameters"]
    assert RunResult.from_dict(result.to_dict()).clipping["first_not_finite"] == found
    (line,) = [line for line in report(result) if line.startswith("Gradients were not finite")]
    assert f"first at step {found['step']} in {found['parameters'][0]}" in line
    (alike,) = train_fleet([WILD], dataset=digits, device="cpu")
    assert alike.clipping["first_not_finite"] == found
    fine = train(WILD.replace(lr=0.01), dataset=digits, device="cpu")
    assert "first_not_finite" not in fine.clipping
    assert not any("were not finite" in line for line in report(fine))


def test_it_is_told_after_a_checkpoint(tmp_path, monkeypatch) -> None:
    """The steps that were not finite are before it."""
    digits = load_dataset("digits")
    config = WILD.replace(lr=0.01, epochs=2, spikes=0.0)
    real = Run._disturb

    def disturb(self, parameters):
        real(self, parameters)
        if self.step == 2:
            parameters[1].grad[0] = NAN

    monkeypatch.setattr(Run, "_disturb", disturb)
    whole = train(config, dataset=digits, device="cpu")
    assert whole.clipping["first_not_finite"] == {"step": 2, "parameters": [FIRST_BIAS]}
    file = tmp_path / "run.ckpt"
    train(config, dataset=digits, device="cpu", checkpoint=file, on_progress=lambda p: p.epoch < 1)
    assert file.exists()
    again = train(config, dataset=digits, device="cpu", checkpoint=file)
    assert again.clipping == whole.clipping


def test_of_several_players_the_one_whose_loss_it_was_is_named() -> None:
    config = RunConfig(task="toy-pair", lr=1e30)
    result = train(config, device="cpu")
    assert result.status == "diverged"
    assert result.message == "the training loss of b was not finite at step 1"
    assert "first_not_finite" not in result.clipping  # its gradient was 1e30, which is a number


def test_of_several_players_whose_gradients_were_not_finite_first() -> None:
    records = {}
    for name, bad in {"critic": 2, "actor": 1}.items():
        weight = torch.nn.Parameter(torch.ones(2))
        clipper = Clipper([("weight", weight)], "norm")
        for step in range(3):
            weight.grad = torch.tensor([1.0, NAN if step == bad else 1.0])
            clipper.step()
        records[name] = clipper.record
    together = PlayerRecords(records)
    together.sequence[:] = ["critic", "critic", "actor", "critic", "actor", "actor"]
    assert together.combined().first_not_finite == FirstNonfinite(3, ("critic.weight",))
    players = together.players(6)
    assert players is not None
    assert players["summaries"]["actor"]["first_not_finite"] == {
        "step": 1,
        "parameters": ["weight"],
    }
    assert "first_not_finite" not in (together.players(1) or {})["summaries"]["critic"]


FIRST_BIAS = [name for name, _ in build("lenet").named_parameters()][1]
