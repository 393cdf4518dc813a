"""Q-learning: the buffer, the targets and the losses by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gclip.errors import UsageError
from gclip.problems.cartpole_dqn import CartPoleDQN, ReplayBuffer, td_targets
from gclip.training import RunConfig
from gclip.training.run_state import RunState


def state_of(task: CartPoleDQN, seed: int = 0) -> RunState:
    config = RunConfig(task=str(task), seed=seed, batch_size=4)
    state = RunState(config, None, torch.device("cpu"))
    torch.manual_seed(seed)
    state.players = {"model": task.players(config)}
    task.setup(state)
    return state


def test_targets_by_hand() -> None:
    values = torch.tensor([[1.0, 3.0], [5.0, 2.0], [7.0, 8.0]])
    fallen = torch.tensor([False, False, True])
    found = td_targets(torch.tensor([1.0, 0.5, 1.0]), values, fallen, 0.9)
    torch.testing.assert_close(found, torch.tensor([1 + 0.9 * 3, 0.5 + 0.9 * 5, 1.0]))


@pytest.mark.parametrize(
    ("loss", "expected"), [("mse", (0.25 + 9) / 2), ("huber", (0.125 + 2.5) / 2)]
)
def test_losses_by_hand(loss: str, expected: float) -> None:
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    seen = torch.tensor([[2.0, 9.0], [9.0, 4.0]])
    actions, targets = torch.tensor([0, 1]), torch.tensor([1.5, 7.0])  # errors 0.5 and −3
    ((name, found),) = CartPoleDQN(loss=loss).losses({"model": model}, (seen, actions, targets))
    assert name == "model"
    assert float(found.detach()) == pytest.approx(expected)


def rows(*first: float) -> torch.Tensor:
    return torch.tensor(first)[:, None].expand(-1, 11).clone()


def test_the_buffer_forgets_the_oldest_first() -> None:
    buffer = ReplayBuffer(4)
    buffer.add(rows(1, 2, 3))
    assert len(buffer) == 3
    buffer.add(rows(4, 5, 6))
    assert len(buffer) == 4
    assert buffer.rows[:, 0].tolist() == [5, 6, 3, 4]


def test_a_sample_has_what_was_added() -> None:
    buffer = ReplayBuffer(9)
    buffer.add(torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8, 1, 0.5, 1]]))
    seen, actions, rewards, then, fallen = buffer.sample(2, torch.Generator().manual_seed(0))
    assert seen.tolist() == [[1, 2, 3, 4]] * 2
    assert then.tolist() == [[5, 6, 7, 8]] * 2
    assert (actions.tolist(), rewards.tolist(), fallen.tolist()) == ([1, 1], [0.5] * 2, [True] * 2)


def test_what_is_kept_follows_the_physics_and_never_crosses_episodes() -> None:
    state = state_of(CartPoleDQN(warmup=300, environments=3, capacity=400))
    buffer = state.keep["buffer"]
    kept = buffer.rows[: len(buffer)]
    seen, then, rewards, fallen = kept[:, :4], kept[:, 4:8], kept[:, 9], kept[:, 10]
    # Euler's method: the position moves by 0.02 s times the speed, and so does the angle.
    torch.testing.assert_close(then[:, 0], seen[:, 0] + 0.02 * seen[:, 1])
    torch.testing.assert_close(then[:, 2], seen[:, 2] + 0.02 * seen[:, 3])
    # Action 1 pushes to the right, action 0 to the left.
    assert ((then[:, 1] > seen[:, 1]) == (kept[:, 8] == 1)).all()
    assert (rewards == 1).all()
    assert ((then[:, 2].abs() > 12 * torch.pi / 180) == (fallen == 1)).all()
    assert fallen.sum() > 5


def test_the_target_network_is_copied_every_so_many_batches() -> None:
    task = CartPoleDQN(steps=6, target_every=3, warmup=20)
    state = state_of(task)
    model, target = state.players["model"], state.keep["target"]
    same = []
    for _ in task.batches(state, 0):
        same.append(all(map(torch.equal, model.parameters(), target.parameters())))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
    assert same == [True, False, False, True, False, False]


def test_a_buffer_smaller_than_its_warm_up_is_refused() -> None:
    with pytest.raises(UsageError, match="warmup"):
        CartPoleDQN(capacity=100, warmup=101)
    with pytest.raises(UsageError, match="environments"):
        CartPoleDQN(capacity=5, warmup=5, environments=6)
