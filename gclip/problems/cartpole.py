"""A pole to balance on a cart: what the problems of reinforcement learning share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gclip.core.fields import setting
from gclip.errors import UsageError
from gclip.training.config import RunConfig
from gclip.training.metric import Metric
from gclip.training.problem import Problem, Source
from gclip.training.run_state import RunState

OBSERVED = 4  # position and speed of the cart, angle and speed of the pole
ACTIONS = 2  # push to the left, push to the right
LONGEST = 500  # steps of an episode, each of which is worth 1

_EVALUATED = 20  # episodes

Observations = NDArray[np.float32]
Policy = Callable[[Observations], NDArray[np.int64]]


def make_environments(count: int) -> Any:
    """``CartPole-v1`` of gymnasium, `count` times as one.

    Raises:
        UsageError: gymnasium is not installed.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise UsageError(
            'CartPole needs gymnasium, which is not installed: pip install "gclip[rl]"'
        ) from error
    return gymnasium.make_vec(
        "CartPole-v1", num_envs=count, vectorization_mode="vector_entry_point"
    )


def play_episodes(environments: Any, policy: Policy, seed: int) -> NDArray[np.float64]:
    """The return of one episode in each environment, ``(environments,)``.

    Args:
        environments: of `make_environments`.
        policy: ``(environments, 4)`` → ``(environments,)``.
        seed: of their first states.
    """
    seen, _ = environments.reset(seed=seed)
    running = np.ones(environments.num_envs, dtype=np.bool_)
    returns = np.zeros(environments.num_envs)
    while running.any():
        seen, rewards, fallen, timed_out, _ = environments.step(policy(seen))
        returns += rewards * running
        running &= ~(fallen | timed_out)
    return returns


def network(hidden: int) -> nn.Sequential:
    """Two hidden layers; a number for each action."""
    return nn.Sequential(
        nn.Linear(OBSERVED, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, ACTIONS),
    )


@dataclass(frozen=True, kw_only=True)
class CartPole(Problem):
    """Base class of what learns to balance a pole on a cart (Barto, Sutton & Anderson, 1983).

    The environment is gymnasium's ``CartPole-v1``. Every epoch begins with new episodes, from a
    seed of the run's, so that a run resumes exactly between two epochs; every evaluation plays the
    same 20 episodes, each beginning in another state, with the likeliest or best action.

    A run that diverged scores 9, as a policy does that always pushes to the same side; one that
    pushes at random gets 22. The most is 500.
    """

    hidden: int = setting(64, at_least=1, doc="units of each hidden layer")
    steps: int = setting(100, at_least=1, doc="batches an epoch")

    metric = Metric(
        "mean return", better="higher", worst=9.0, low=0.0, high=float(LONGEST), decimals=1
    )

    def data(self, source: Source) -> None:
        """Nothing; but the environment must be there."""
        make_environments(1).close()

    def players(self, config: RunConfig) -> nn.Module:
        """The network that acts."""
        return network(self.hidden)

    def batches_per_epoch(self, state: RunState) -> int:
        """As the field says."""
        return self.steps

    def evaluate(
        self, players: Mapping[str, nn.Module], state: RunState, split: str
    ) -> Mapping[str, float]:
        """The mean return of 20 episodes."""
        if "evaluated" not in state.cache:
            state.cache["evaluated"] = make_environments(_EVALUATED)
        returns = play_episodes(
            state.cache["evaluated"],
            lambda seen: best_actions(players["model"], seen, state.device),
            state.seed(split),
        )
        return {self.metric.name: float(returns.mean())}


def epoch_seed(state: RunState) -> int:
    """The seed of the next epoch's episodes; another at every call."""
    return int(torch.randint(2**31 - 1, (), generator=state.generator("episodes")))


@torch.no_grad()
def best_actions(model: nn.Module, seen: Observations, device: torch.device) -> NDArray[np.int64]:
    """The actions for which `model` gives the highest numbers, ``(environments,)``."""
    actions: NDArray[np.int64] = model(on_device(seen, device)).argmax(1).cpu().numpy()
    return actions


def on_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor of its own."""
    return torch.from_numpy(values.copy()).to(device)
