"""Promises about steps: every player is clipped, nothing else moves it, and they are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import nn

from gclip.testing.applicability import DoesNotApply
from gclip.training.contract.problem_subject import CONTRACT, TIGHT, ProblemSubject
from gclip.training.problem import Problem
from gclip.training.result import RunResult


@CONTRACT.promise("every player is stepped, and all its steps are clipped")
def clipped(subject: ProblemSubject) -> Iterator[str]:
    """By a limit below any gradient. A gradient of exactly zero has nothing to clip."""
    result = subject.run(strategy=TIGHT)
    for name, own in _steps_of(result).items():
        norms, was = result.steps["norm"][own], result.steps["clipped"][own]
        reached = (norms > 0) & np.isfinite(norms)
        if not len(norms):
            yield f"{name} is never stepped: losses yields nothing for it"
        elif not reached.any():
            yield f"all {len(norms)} gradients of {name} are zero: its loss does not reach it"
        elif not was[reached].all():
            missed = int((~was[reached].astype(bool)).sum())
            yield f"{missed} of {len(norms)} steps of {name} are not clipped by {TIGHT}"


def _steps_of(result: RunResult) -> dict[str, Any]:
    """Which steps each player made, as a mask."""
    count = len(result.steps["norm"])
    players = result.clipping.get("players")
    if players is None:
        return {"model": np.ones(count, dtype=bool)}
    return {name: result.steps["player"] == index for index, name in enumerate(players)}


@CONTRACT.promise("nothing but its steps moves a player's parameters")
def moved(subject: ProblemSubject) -> Iterator[str]:
    """With gradients clipped to next to nothing they stay where they are."""
    settings = {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0}
    with subject.by_hand(strategy=TIGHT, **settings) as run:
        before = {name: _copies(each) for name, each in run.state.players.items()}
        run.train_epoch(lambda: True)
        for name, network in run.state.players.items():
            for parameter, now in network.named_parameters():
                was = before[name][parameter]
                change = float((now.detach() - was).abs().max()) if now.numel() else 0.0
                if not change <= 1e-6 * (1 + float(was.abs().max() if was.numel() else 0.0)):
                    yield (
                        f"{parameter} of {name} moves by {change:g} in an epoch of steps of "
                        "next to nothing; what it is stepped by is yielded by losses, so that it "
                        "is clipped"
                    )


def _copies(network: nn.Module) -> dict[str, Any]:
    return {name: each.detach().clone() for name, each in network.named_parameters()}


@CONTRACT.promise("it trains with SGD and with Adam")
def optimizers(subject: ProblemSubject) -> Iterator[str]:
    """Two epochs each, at a small learning rate."""
    for name in ("sgd", "adam"):
        result = subject.run(optimizer=name, lr=1e-4)
        if result.status != "finished":
            yield f"with {name} at lr 1e-4 it has {result.status}: {result.message}"


@CONTRACT.promise("batches_per_epoch is how many batches there are in every epoch")
def counted(subject: ProblemSubject) -> Iterator[str]:
    """Where it is not None; schedules go by it."""
    with subject.by_hand() as run:
        said = run.problem.batches_per_epoch(run.state)
        if said is None:
            raise DoesNotApply("batches_per_epoch is None: nobody knows, and nothing is scheduled")
        for epoch, steps in enumerate(_epochs(run)):
            if len(steps) != said:
                yield f"epoch {epoch} has {len(steps)} batches, but batches_per_epoch is {said}"


@CONTRACT.promise("a batch steps no player more often than updates says")
def updates(subject: ProblemSubject) -> Iterator[str]:
    """Once, where it says nothing."""
    with subject.by_hand() as run:
        most = run.problem.steps_per_batch(run.players)
        for epoch, batches in enumerate(_epochs(run)):
            for place, steps in enumerate(batches):
                for name, count in steps.items():
                    if count > most[name]:
                        yield (
                            f"batch {place} of epoch {epoch} steps {name} {count} times, but "
                            f"updates allows {most[name]}: updates = {{{name!r}: {count}}}"
                        )
                        return


def _epochs(run: Any) -> Iterator[list[Counter[str]]]:
    """Train two epochs; of each, the steps of every batch by player."""
    counting = _Counting(run.problem)
    run.problem = counting
    for _ in range(2):
        counting.steps = []
        run.train_epoch(lambda: True)
        yield counting.steps


class _Counting:
    """A problem that keeps count of its batches and of the losses that they yield."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.steps: list[Counter[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def batches(self, state: Any, epoch: int) -> Iterable[Any]:
        """The problem's, counted."""
        for batch in self._problem.batches(state, epoch):
            self.steps.append(Counter())
            yield batch

    def losses(self, players: Mapping[str, nn.Module], batch: Any) -> Iterator[Any]:
        """The problem's, counted."""
        for item in self._problem.losses(players, batch):
            self.steps[-1][item[0]] += 1
            yield item
