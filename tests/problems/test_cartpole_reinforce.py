"""REINFORCE: returns-to-go and losses by hand, and what an episode's batch holds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gclip.problems.cartpole_reinforce import CartPoleReinforce, returns_to_go
from gclip.training import RunConfig
from gclip.training.run_state import RunState


def test_returns_to_go_by_hand() -> None:
    rewards = torch.tensor([[1.0, 1.0], [1.0, 2.0], [4.0, 0.0]])
    expected = torch.tensor([[1 + 0.5 * (1 + 0.5 * 4), 2.0], [3.0, 2.0], [4.0, 0.0]])
    torch.testing.assert_close(returns_to_go(rewards, 0.5), expected)


def test_losses_by_hand() -> None:
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[0.0], [math.log(3)]])  # π(1) = 3/4 where 1 is seen
    batch = (torch.ones(2, 1), torch.tensor([1, 0]), torch.tensor([2.0, -1.0]))
    ((name, loss),) = CartPoleReinforce().losses({"model": model}, batch)
    assert name == "model"
    assert float(loss.detach()) == pytest.approx(-2 * math.log(3 / 4) + math.log(1 / 4))


def play(task: CartPoleReinforce) -> tuple[torch.Tensor, ...]:
    config = RunConfig(task=str(task), batch_size=3, seed=1)
    state = RunState(config, None, torch.device("cpu"))
    torch.manual_seed(0)
    state.players = {"model": task.players(config)}
    task.setup(state)
    return next(iter(task.batches(state, 0)))


def test_a_batch_is_whole_episodes() -> None:
    seen, actions, weights = play(CartPoleReinforce(discount=1.0, baseline=False))
    assert len(seen) == len(actions) == len(weights)
    # Without discount an episode's steps are worth its length, …, 2, 1, divided by 3 episodes.
    left = (weights * 3).round()
    assert (left == 1).sum() == 3
    # Each episode has as many first steps as last ones: lengths add up to all steps.
    lengths = [int(each) for each in left[:3]]
    assert sum(lengths) == len(seen)
    assert seen[:3].abs().max() <= 0.05  # where episodes begin
    assert left.sum() == sum(n * (n + 1) / 2 for n in lengths)


def test_the_baseline_takes_off_the_mean() -> None:
    _, _, free = play(CartPoleReinforce(baseline=False))
    _, _, less = play(CartPoleReinforce(baseline=True))
    torch.testing.assert_close(less, free - free.mean())
