"""A fleet that was stopped goes on to the same bits, whoever of it has left by then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gclip.core import stopping
from gclip.training import Progress, RunConfig, RunResult, load_dataset
from gclip.training.checkpointer import Checkpointer
from gclip.training.contract.bits import difference
from gclip.training.fleet import train as fleet_train
from gclip.training.fleet import train_fleet
from gclip.training.fleet.run import FleetRun

DIGITS = load_dataset("digits")
BASE = RunConfig(epochs=2, fraction=0.1, batch_size=32, augment=True, optimizer="adam", lr=0.005)
# Memory by group and by parameter, updates, skips of single runs, a run that leaves, several seeds.
MEMBERS = [
    BASE.replace(strategy="zclip"),
    BASE.replace(strategy="norm", lr=1e9),
    BASE.replace(strategy="clippy", seed=1),
    BASE.replace(strategy="sigma_skip(start=2, sigmas=0.1)", seed=1, lr=0.01),
    BASE.replace(strategy="spam", gradient_noise=0.1),
    BASE.replace(strategy="percentile", spikes=0.5, seed=2),
]


def trained(steps: list[int], path: Path, monkeypatch: Any) -> dict[int, RunResult]:
    """All that is given of a fleet that is stopped after so many steps, again and again."""
    monkeypatch.setattr(fleet_train, "_EVERY", 0.0)
    found: dict[int, RunResult] = {}
    for stop in [*steps, None]:
        said: list[str] = []

        def listen(_: int, progress: Progress, stop: int | None = stop) -> None:
            if stop is not None and progress.step >= stop:
                stopping.request(KeyboardInterrupt())

        keeper = Checkpointer(path, every=1e6, tell=said.append)
        try:
            train_fleet(
                MEMBERS, dataset=DIGITS, device="cpu", threads=1, checkpoint=keeper,
                on_progress=listen, on_result=found.setdefault,
            )  # fmt: skip
        except KeyboardInterrupt:
            assert stop is not None
        else:
            assert stop is None
        assert said == []
    return found


def test_it_goes_on_from_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained([], tmp_path / "none", monkeypatch)
    assert [whole[place].status for place in range(2)] == ["finished", "diverged"]
    assert whole[3].clipping["skipped"] > 0
    resumed = trained([1, 4, 6], tmp_path / "x", monkeypatch)
    assert resumed.keys() == whole.keys()
    for place, result in whole.items():
        assert difference(resumed[place], result, "without a stop") is None, MEMBERS[place]


def test_epochs_before_a_stop_are_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever decides whether runs go on hears of each epoch; who should have gone is pruned."""
    trained_twice = [BASE.replace(strategy="norm", epochs=3), BASE.replace(epochs=3)]
    heard: list[list[tuple[int, int, float]]] = []
    for stop in (2, 9):
        heard.append([])

        def listen(place: int, progress: Progress, stop: int = stop) -> bool:
            if progress.status == "running" and progress.score is not None:
                heard[-1].append((place, progress.epoch, progress.score))
            if progress.epoch == stop:
                stopping.request(KeyboardInterrupt())
            return not (stop == 9 and place == 1 and progress.epoch == 2)

        keeper = Checkpointer(tmp_path / "x", every=1e6, tell=print)
        results = []
        try:
            results = train_fleet(
                trained_twice, dataset=DIGITS, device="cpu", threads=1, checkpoint=keeper,
                on_progress=listen,
            )  # fmt: skip
        except KeyboardInterrupt:
            assert stop == 2
    assert [each[:2] for each in heard[0]] == [(0, 1), (1, 1), (0, 2), (1, 2)]
    assert sorted(heard[0]) == sorted(heard[1])
    assert [result.status for result in results] == ["finished", "pruned"]
    assert results[1].stopped_at == results[1].curve[-1]["step"]


def test_each_runs_own_optimizer_state_comes_back() -> None:
    """From the first step on that not all of them take, runs have optimizers of their own."""
    configs = [BASE.replace(strategy="norm"), BASE.replace(strategy="norm", seed=1)]
    one, other = (FleetRun(configs, DIGITS, torch.device("cpu"))._optimizer for _ in range(2))
    for stack in one._parameters:
        stack.grad = torch.ones_like(stack)
    one.step(torch.tensor([False, False]))
    one.step(torch.tensor([True, False]))
    other.load_state_dict(one.state_dict())
    mine, theirs = one._states(), other._states()
    assert [state[0]["step"].item() for state in theirs] == [1.0, 2.0]
    for of_run, again in zip(mine, theirs, strict=True):
        for state, same in zip(of_run, again, strict=True):
            assert all(torch.equal(value, same[name]) for name, value in state.items())
