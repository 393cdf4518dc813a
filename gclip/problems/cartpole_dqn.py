"""CartPole by Q-learning with a replay buffer and a target network."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.core.fields import setting
from gclip.errors import UsageError
from gclip.problems.cartpole import (
    ACTIONS,
    OBSERVED,
    CartPole,
    best_actions,
    epoch_seed,
    make_environments,
)
from gclip.training.problem import Losses
from gclip.training.run_state import RunState
from gclip.training.tasks import register_problem


class Transitions(NamedTuple):
    """What was seen and done, and what came of it, each ``(count, …)``."""

    seen: Tensor
    actions: Tensor
    rewards: Tensor
    then: Tensor
    fallen: Tensor


class ReplayBuffer:
    """The latest transitions: rows of one tensor, the oldest overwritten first.

    Args:
        capacity: how many are kept.
    """

    def __init__(self, capacity: int) -> None:
        self.rows = torch.zeros(capacity, 2 * OBSERVED + 3)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, len(self.rows))

    def add(self, new: Tensor) -> None:
        """Keep new rows, at most as many as the capacity: what was seen, what was seen then, the
        action, the reward, and whether the episode ended in a fall; ``(count, 11)``."""
        first = self.added % len(self.rows)
        fitting = len(self.rows) - first
        self.rows[first : first + len(new)] = new[:fitting]
        self.rows[: max(0, len(new) - fitting)] = new[fitting:]
        self.added += len(new)

    def sample(self, count: int, generator: torch.Generator) -> Transitions:
        """Any `count` of them, with replacement."""
        rows = self.rows[torch.randint(len(self), (count,), generator=generator)]
        seen, then = rows[:, :OBSERVED], rows[:, OBSERVED : 2 * OBSERVED]
        action, reward, fallen = rows[:, 2 * OBSERVED :].T
        return Transitions(seen, action.long(), reward, then, fallen.bool())

    def state_dict(self) -> dict[str, Any]:
        """The rows, and how many were ever added."""
        return {"rows": self.rows, "added": self.added}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.rows, self.added = state["rows"].clone(), state["added"]


def td_targets(rewards: Tensor, values: Tensor, fallen: Tensor, discount: float) -> Tensor:
    """What a Q-value should have been: r + γ·max Q(s', ·), and r where the episode ended there.

    Args:
        rewards, fallen: ``(batch,)``.
        values: the target network's for the state that followed, ``(batch, actions)``.
        discount: γ.
    """
    return rewards + discount * values.amax(1) * ~fallen


@register_problem("cartpole-dqn")
@dataclass(frozen=True, kw_only=True)
class CartPoleDQN(CartPole):
    """Balance a pole by deep Q-learning (Mnih et al., 2015).

    Mnih et al. clip the error of a Q-value to ±1, as the Huber loss does; the default loss is the
    squared error, whose gradients grow with the values, so that it is left to the strategy to clip
    them. At the default rate gradient descent without clipping learns nothing; adaptive optimizers
    need no clipping here (``--optimizer rmsprop --lr 0.003``), and learn more with it left out.
    """

    steps: int = setting(250, at_least=1, doc="batches an epoch")
    environments: int = setting(8, at_least=1, doc="that are stepped once a batch")
    loss: Literal["mse", "huber"] = setting("mse", choices=("mse", "huber"), doc="of a Q-value")
    discount: float = setting(0.99, at_least=0, at_most=1, doc="of the rewards to come")
    exploration: float = setting(0.1, at_least=0, at_most=1, doc="share of random actions")
    capacity: int = setting(10_000, at_least=1, doc="transitions that the replay buffer keeps")
    warmup: int = setting(1000, at_least=1, doc="of them made at random before training")
    target_every: int = setting(50, at_least=1, doc="batches between two copies of the network")

    defaults = {"optimizer": "sgd", "lr": 0.05, "batch_size": 64, "epochs": 10}
    small = {
        "epochs": 2, "steps": 8, "hidden": 8, "environments": 2, "capacity": 100, "warmup": 10,
    }  # fmt: skip

    def validate(self) -> None:
        """The buffer holds its warm-up, and a step of all environments."""
        for name in ("warmup", "environments"):
            if getattr(self, name) > self.capacity:
                raise UsageError(
                    f"{self.name}: {name} must be at most capacity={self.capacity}, but got "
                    f"{getattr(self, name)}"
                )

    def setup(self, state: RunState) -> None:
        """Fill the buffer with random actions; copy the network."""
        state.cache["environments"] = make_environments(self.environments)
        state.keep["buffer"] = buffer = ReplayBuffer(self.capacity)
        state.keep["target"] = copy.deepcopy(state.players["model"]).requires_grad_(False)
        steps = self._steps(state, exploration=1.0)
        while buffer.added < self.warmup:
            buffer.add(next(steps))

    def batches(self, state: RunState, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One step of every environment, then a batch of the buffer: observations, actions and
        what the Q-values should be."""
        target, buffer = state.keep["target"], state.keep["buffer"]
        steps, generator = self._steps(state, self.exploration), state.generator("replay")
        for number in range(self.steps):
            if (epoch * self.steps + number) % self.target_every == 0:
                target.load_state_dict(state.players["model"].state_dict())
            buffer.add(next(steps))
            drawn = buffer.sample(state.config.batch_size, generator)
            seen, actions, rewards, then, fallen = (each.to(state.device) for each in drawn)
            with torch.no_grad():
                targets = td_targets(rewards, target(then), fallen, self.discount)
            yield seen, actions, targets

    def losses(self, players: Mapping[str, nn.Module], batch: Any) -> Losses:
        """Of the Q-values of the actions that were taken."""
        seen, actions, targets = batch
        values = players["model"](seen).gather(1, actions[:, None]).squeeze(1)
        loss = F.mse_loss if self.loss == "mse" else F.smooth_l1_loss
        yield "model", loss(values, targets)

    def _steps(self, state: RunState, exploration: float) -> Iterator[Tensor]:
        """Step all environments, for ever: rows for the buffer. The first call begins new
        episodes."""
        environments, generator = state.cache["environments"], state.generator("exploration")
        model, count = state.players["model"], self.environments
        seen, _ = environments.reset(seed=epoch_seed(state))
        goes_on = np.ones(count, dtype=np.bool_)
        while True:
            draws = torch.rand(2, count, generator=generator).numpy()
            any_action = (draws[1] * ACTIONS).astype(np.int64)
            best = best_actions(model, seen, state.device) if exploration < 1 else any_action
            actions = np.where(draws[0] < exploration, any_action, best)
            then, rewards, fallen, timed_out, _ = environments.step(actions)
            rows = np.column_stack((seen, then, actions, rewards, fallen)).astype(np.float32)
            # After its last step an environment makes one that only begins a new episode.
            yield torch.from_numpy(rows[goes_on])
            goes_on, seen = ~(fallen | timed_out), then
