"""CartPole by the gradient of the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.core.fields import setting
from gclip.problems.cartpole import CartPole, epoch_seed, make_environments, on_device
from gclip.training.problem import Losses
from gclip.training.run_state import RunState
from gclip.training.tasks import register_problem

Batch = tuple[Tensor, Tensor, Tensor]


def returns_to_go(rewards: Tensor, discount: float) -> Tensor:
    """What each step still brought: its reward, and γ times what the next step still brought.

    Args:
        rewards: ``(steps, episodes)``, 0 after an episode's end.
        discount: γ.
    """
    found = torch.empty_like(rewards)
    left = torch.zeros_like(rewards[0])
    for step in range(len(rewards) - 1, -1, -1):
        left = rewards[step] + discount * left
        found[step] = left
    return found


@register_problem("cartpole-reinforce")
@dataclass(frozen=True, kw_only=True)
class CartPoleReinforce(CartPole):
    """Balance a pole by REINFORCE (Williams, 1992).

    The loss is a sum over an episode's steps, and returns grow with what is learned, so that
    gradients grow by orders of magnitude in a run. At the default rate the first steps without
    clipping make a policy that always pushes to one side, and it stays so.
    """

    steps: int = setting(10, at_least=1, doc="batches an epoch")
    discount: float = setting(0.99, at_least=0, at_most=1, doc="of the rewards to come")
    baseline: bool = setting(True, doc="take the batch's mean return-to-go off every one")

    defaults = {"optimizer": "sgd", "lr": 0.01, "batch_size": 8, "epochs": 6}
    small = {"epochs": 2, "steps": 2, "hidden": 8}

    def setup(self, state: RunState) -> None:
        """As many environments as there are episodes in a batch."""
        state.cache["environments"] = make_environments(state.config.batch_size)

    def batches(self, state: RunState, epoch: int) -> Iterator[Batch]:
        """``config.batch_size`` episodes each, by the policy as it is then."""
        for _ in range(self.steps):
            yield self._play(state)

    def losses(self, players: Mapping[str, nn.Module], batch: Any) -> Losses:
        """Whose gradient is the policy's: −log π(a) times what the action brought, summed over
        an episode's steps; the mean over the episodes."""
        seen, actions, weights = batch
        surprise = F.cross_entropy(players["model"](seen), actions, reduction="none")
        yield "model", (surprise * weights).sum()

    @torch.no_grad()
    def _play(self, state: RunState) -> Batch:
        """Observations ``(steps, 4)``, actions, and the weights of their log-probabilities, of all
        steps of all episodes."""
        environments, generator = state.cache["environments"], state.generator("actions")
        policy, count = state.players["model"], environments.num_envs
        seen, _ = environments.reset(seed=epoch_seed(state))
        running = np.ones(count, dtype=np.bool_)
        made: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        while running.any():
            here = on_device(seen, state.device)
            right = policy(here).softmax(1)[:, 1].cpu()
            actions = (torch.rand(count, generator=generator) < right).long()
            mask = on_device(running, torch.device("cpu"))
            seen, rewards, fallen, timed_out, _ = environments.step(actions.numpy())
            made.append((here, actions, torch.from_numpy(rewards * running), mask))
            running = running & ~(fallen | timed_out)
        observed, acted, rewarded, masked = (torch.stack(each) for each in zip(*made, strict=True))
        left = returns_to_go(rewarded, self.discount)[masked]
        weights = (left - left.mean() if self.baseline else left) / count
        mask = masked.to(state.device)
        return observed[mask], acted[masked].to(state.device), weights.to(state.device)
