"""The problem under test, and the short runs that it is tried with."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gclip.core.fields import fields_of
from gclip.training.config import RunConfig
from gclip.training.contract.bits import bits
from gclip.training.contract.contract import Contract
from gclip.training.contract.world import world
from gclip.training.dataset import Dataset
from gclip.training.device import reproducible
from gclip.training.identified import identified_config
from gclip.training.problem import Problem
from gclip.training.problem_data import ProblemData
from gclip.training.problem_errors import checked_scores, within
from gclip.training.problem_registry import SETTINGS
from gclip.training.problem_run import ProblemRun
from gclip.training.recipes import task_defaults
from gclip.training.result import RunResult
from gclip.training.tasks import load_data
from gclip.training.trainer import Listener, train

CPU = torch.device("cpu")
STRATEGY = "norm"
"""What clips where it does not matter."""
TIGHT = "norm(max_norm=1e-12)"
"""Leaves next to nothing of any gradient."""


class ProblemSubject:
    """A problem, as small as it says it can be, and what a promise needs to try it out.

    Attributes:
        problem: with the fields of `Problem.small`, where it was not spelled with others.
        seed: of its runs.
        folder: where its data is; None without one.
    """

    def __init__(self, problem: Problem, seed: int = 0, folder: str | Path | None = None) -> None:
        self.problem, self.seed, self.folder = _shrunk(problem), seed, folder
        self._runs: dict[str, RunResult] = {}

    @property
    def cls(self) -> type[Problem]:
        """Its class."""
        return type(self.problem)

    @functools.cached_property
    def data(self) -> Dataset | ProblemData:
        """Its data, loaded once."""
        found = self.load()
        self.bits_of_data = bits(found)
        return found

    def load(self) -> Dataset | ProblemData:
        """Its data, loaded anew; nothing is downloaded."""
        return load_data(str(self.problem), self.folder, download=False)

    def config(self, **changes: Any) -> RunConfig:
        """The config of a short run of at least two epochs."""
        small = {name: value for name, value in self.cls.small.items() if name in _settings()}
        epochs = max(2, small.get("epochs", 2))
        base = task_defaults(str(self.problem)).replace(**{**small, "epochs": epochs})
        wanted = {"strategy": STRATEGY, "seed": self.seed, **changes}
        return base.replace(**wanted)

    def run(self, *, program: int = 0, **changes: Any) -> RunResult:
        """A run, made once.

        Args:
            program: whose global random states it finds.
            changes: fields of the config.
        """
        config = self.config(**changes)
        key = f"{program} {config.key}"
        if key not in self._runs:
            with world(program):
                self._runs[key] = self.train(config)
        return self._runs[key]

    def train(
        self,
        config: RunConfig,
        *,
        checkpoint: Path | None = None,
        on_progress: Listener | None = None,
    ) -> RunResult:
        """Train, on one thread of the CPU."""
        return train(
            config,
            dataset=self.data,
            device="cpu",
            threads=1,
            checkpoint=checkpoint,
            on_progress=on_progress,
        )

    @contextlib.contextmanager
    def by_hand(self, **changes: Any) -> Iterator[ProblemRun]:
        """A run by the general path that the promise drives itself."""
        data = self.data
        if isinstance(data, Dataset):
            data = ProblemData(name=data.name, value=data, identity=data.identity)
        config = identified_config(self.config(**changes), data)
        with world(0), reproducible(CPU, 1):
            yield ProblemRun(config, data, CPU)


def evaluate(run: ProblemRun) -> dict[str, float]:
    """What the problem says of the players now, as the trainer asks."""
    state, problem = run.state, run.problem
    modes = {name: each.training for name, each in state.players.items()}
    for network in state.players.values():
        network.eval()
    with within(problem, "evaluate"), torch.no_grad():
        found = problem.evaluate(state.players, state, run.config.split)
    for name, network in state.players.items():
        network.train(modes[name])
    return checked_scores(problem, found, run.history.metric.name)


def snapshot(run: ProblemRun) -> Any:
    """A copy of all that the rest of a run depends on, and what the networks hold."""
    return copy.deepcopy(run.state_dict())


def _settings() -> tuple[str, ...]:
    return SETTINGS


def _shrunk(problem: Problem) -> Problem:
    """The problem with the fields that its class calls small, those set otherwise left."""
    defaults = {info.name: info.default for info in fields_of(type(problem))}
    small = {
        name: value
        for name, value in type(problem).small.items()
        if name in defaults and getattr(problem, name) == defaults[name]
    }
    return dataclasses.replace(problem, **small)


CONTRACT: Contract[ProblemSubject] = Contract(
    "problem_words",
    "problem_bits",
    "problem_values",
    "problem_steps",
    "problem_paths",
    "problem_process",
)
