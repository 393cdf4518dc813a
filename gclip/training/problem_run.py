"""One run of any problem: its players, its batches; one epoch, one measurement.

What `gclip.training.run.Run` is to problems with a fast path.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from gclip.clipping.layer_norms import LayerNorms
from gclip.core import registry
from gclip.core.players import by_player
from gclip.errors import UsageError
from gclip.training import seeds
from gclip.training.config import RunConfig
from gclip.training.disturbances import Disturbance
from gclip.training.history import RunHistory
from gclip.training.player import Player
from gclip.training.player_records import PlayerRecords
from gclip.training.problem import losses_of
from gclip.training.problem_data import ProblemData
from gclip.training.problem_errors import (
    checked_loss,
    checked_players,
    checked_scores,
    each_within,
    within,
)
from gclip.training.random_streams import RandomStream
from gclip.training.result import RunResult, Status
from gclip.training.run_state import RunState
from gclip.training.tasks import problem_of


class ProblemRun:
    """The state of a run and what is done with it. Call within `device.reproducible`.

    Attributes:
        history: its losses, its curve, and whether it diverged.
        players: what is trained, by name.
        epoch: whole epochs done.
        step: optimizer steps done, of all players.

    Raises:
        UsageError: the problem built what cannot be trained, or the config asks for what it cannot.
    """

    resumes_within_epochs = False
    """Nobody can leave out a part of the batches that a problem makes."""
    facts: dict[str, str] = {}  # noqa: RUF012 - what a result's environment tells: nothing

    def __init__(self, config: RunConfig, data: ProblemData, device: torch.device) -> None:
        self.config, self.device = config, device
        self.problem = problem_of(config.task)
        self.state = RunState(config, data.value, device)
        torch.manual_seed(seeds.derive(config.seed, "weights"))
        with within(self.problem, "players"):
            built = self.problem.build_players(self.state)
        networks = checked_players(self.problem, built)
        self.state.players = {name: each.to(device) for name, each in networks.items()}
        torch.manual_seed(seeds.derive(config.seed, "dropout"))
        self._stream = RandomStream(seeds.derive(config.seed, "strategy"), device)
        with within(self.problem, "setup"):
            self.problem.setup(self.state)
        with within(self.problem, "batches_per_epoch"):
            self._epoch_batches = self.problem.batches_per_epoch(self.state)
        self._layers = LayerNorms(self.state.players) if config.watch == "layer" else None
        self.players = self._make_players()
        self.epoch = self.step = 0
        self._current = 1  # the epoch that is trained or measured
        metric = self.problem.metric_of(self.state.data)
        self.history = RunHistory(config, [], metric, None, device)
        self._records = PlayerRecords({n: p.clipper.record for n, p in self.players.items()})
        self._finite: dict[str, torch.Tensor] = {}
        if len(self.players) > 1:
            self.history.monitor.player_of = self._records.sequence.__getitem__

    @property
    def steps(self) -> int:
        """How many optimizer steps there will be; as far as the epochs so far tell, where nobody
        knows."""
        if self._epoch_batches is not None:
            each = sum(self.problem.steps_per_batch(self.players).values())
            return max(self.step, self._epoch_batches * each * self.config.epochs)
        return self.step * self.config.epochs // max(self.epoch, 1) or 1

    def train_epoch(self, should_continue: Callable[[], bool]) -> bool:
        """Train one epoch; False if it was broken off, by divergence or by `should_continue`."""
        monitor, problem = self.history.monitor, self.problem
        networks = self.state.players
        for network in networks.values():
            network.train()
        with within(problem, "batches"):
            batches = problem.batches(self.state, self.epoch)
        self._current = self.epoch + 1
        for batch in each_within(problem, "batches", batches):
            with within(problem, "losses"), self._precision():
                losses = losses_of(problem, networks, batch)
            for name, loss in self._losses(losses):
                if not self._train_step(name, loss):
                    return False
            if not should_continue():
                monitor.look()
                return False
        if not self.step and self._current == self.config.epochs:
            raise UsageError(
                f"problem {problem.name}: no batch of {self.config.epochs} epochs yielded a loss, "
                "so that nothing was trained"
            )
        self.epoch += 1
        return monitor.look()

    def measure(self, seconds: float) -> None:
        """Measure the metric on ``config.split`` and put it on the curve."""
        problem, metric = self.problem, self.history.metric
        for network in self.state.players.values():
            network.eval()
        with within(problem, "evaluate"), torch.no_grad(), self._precision():
            found = problem.evaluate(self.state.players, self.state, self.config.split)
        scores = checked_scores(problem, found, metric.name)
        value = scores[metric.name]
        if math.isnan(value) and self._all_finite():
            raise UsageError(
                f"problem {problem.name}: evaluate gave NaN for {metric.name!r}, though all "
                "parameters and losses are finite; return a number, or let the losses tell a "
                "divergence"
            )
        self.history.add_scores(self.epoch, self.step, scores, seconds)

    def mark_diverged(self, seconds: float) -> None:
        """End the curve with the metric's worst value."""
        self.step = self.history.end_diverged(seconds, epoch=self._current)

    def result(
        self, status: Status, message: str, *, seconds: float, environment: dict[str, Any]
    ) -> RunResult:
        """What came of the run so far; see `gclip.training.run.Run.result`."""
        return self.history.result(
            status,
            message,
            step=self.step,
            record=self._records.combined(),
            seconds=seconds,
            environment=environment,
            players=self._records.players(self.step),
            layers=self._layers,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on, at an epoch's end."""
        with within(self.problem, "setup"):
            own = self.state.state_dict()
        return {
            "players": {name: each.state_dict() for name, each in self.players.items()},
            "problem": own,
            "chance": torch.get_rng_state(),
            "chance_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
            "strategy": self._stream.state_dict(),
            "sequence": list(self._records.sequence),
            "rates": list(self.history.rates),
            "layers": None if self._layers is None else self._layers.state_dict(),
            **self.history.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        for name, saved in state["players"].items():
            self.players[name].load_state_dict(saved)
        self.state.load_state_dict(state["problem"])
        torch.set_rng_state(state["chance"])
        if state["chance_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["chance_cuda"])
        self._stream.load_state_dict(state["strategy"])
        self._records.sequence[:] = state["sequence"]
        if self._layers is not None:
            self._layers.load_state_dict(state["layers"])
        self.history.rates[:] = state["rates"]
        self.history.load_state_dict(state)
        self.epoch, self.step = state["epoch"], state["step"]

    # -- inside ------------------------------------------------------------------------------

    def _make_players(self) -> dict[str, Player]:
        config, networks = self.config, self.state.players
        strategies = by_player(registry.parse_for_run(config.strategy), networks)
        each = self.problem.steps_per_batch(networks)
        batches = self._epoch_batches
        return {
            name: Player(
                name,
                network,
                strategies[name],
                config,
                self.device,
                total_steps=None if batches is None else batches * each[name] * config.epochs,
                alone=len(networks) == 1,
                disturbance=Disturbance(
                    config.gradient_noise, config.spikes, config.seed, "" if index == 0 else name
                ),
                stream=self._stream,
                layers=self._layers,
            )
            for index, (name, network) in enumerate(networks.items())
        }

    def _losses(self, found: Any) -> Any:
        """The losses of a batch, each computed when the step before it has been taken."""
        while True:
            with within(self.problem, "losses"), self._precision():
                try:
                    item = next(found)
                except StopIteration:
                    return
            yield checked_loss(self.problem, item, self.players)

    def _train_step(self, name: str, loss: torch.Tensor) -> bool:
        player = self.players[name]
        report = player.train_step(loss, self._clear)
        self._records.sequence.append(name)
        self.history.rates.append(player.lr)
        self.step += 1
        # Steps in a row without finite gradients count whichever player's they are.
        finite = report.finite
        if len(self.players) > 1:
            self._finite[name] = finite
            finite = functools.reduce(torch.logical_and, self._finite.values())
        return self.history.monitor.note(loss.detach(), finite)

    def _clear(self) -> None:
        for player in self.players.values():
            player.clear()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _all_finite(self) -> bool:
        return all(
            bool(torch.isfinite(value).all())
            for network in self.state.players.values()
            for value in network.parameters()
        )
