"""What the problems on CartPole share: episodes, and an environment that is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from gclip.errors import UsageError
from gclip.problems.cartpole import CartPole, make_environments, play_episodes
from gclip.training import load_data
from gclip.training.problem_registry import PROBLEMS


def left(seen: np.ndarray) -> np.ndarray:
    return np.zeros(len(seen), dtype=np.int64)


def one_by_one(seed: int, policy: np.ndarray) -> list[float]:
    """The same episodes in gymnasium's single environment, from the same first states."""
    import gymnasium

    many = make_environments(5)
    starts, _ = many.reset(seed=seed)
    returns = []
    for start in starts:
        single = gymnasium.make("CartPole-v1")
        single.reset(seed=0)
        single.unwrapped.state = start.astype(np.float64)
        total, ended, seen = 0.0, False, start
        while not ended:
            seen, reward, fallen, timed_out, _ = single.step(int(seen @ policy > 0))
            total, ended = total + reward, fallen or timed_out
        returns.append(total)
    return returns


@pytest.mark.parametrize("policy", [(0, 0, 0, 0), (0.0, 0.0, 1.0, 0.0), (0.1, 0.5, 1.0, 1.0)])
def test_returns_are_those_of_single_environments(policy: tuple[float, ...]) -> None:
    weights = np.array(policy)
    found = play_episodes(
        make_environments(5), lambda seen: (seen @ weights > 0).astype(np.int64), seed=7
    )
    assert found.tolist() == one_by_one(7, weights)


def test_the_worst_is_that_of_always_pushing_to_one_side() -> None:
    returns = play_episodes(make_environments(500), left, seed=0)
    assert returns.mean() == pytest.approx(CartPole.metric.worst, abs=0.5)


def test_without_gymnasium_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    assert {"cartpole-dqn", "cartpole-reinforce"} <= set(PROBLEMS.names())
    for task in ("cartpole-dqn", "cartpole-reinforce"):
        with pytest.raises(UsageError, match=r'pip install "gclip\[rl\]"'):
            load_data(task)
