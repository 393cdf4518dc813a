"""Adding: batches by hand, what the cells are, and what the worst score is."""

from __future__ import annotations

import pytest
import torch

from gclip.problems.adding import Adder, Adding, draw
from gclip.training import RunConfig
from gclip.training.problem import Source


@pytest.mark.parametrize("length", [2, 7, 20])
def test_a_batch_by_hand(length: int) -> None:
    sequences, sums = draw(500, length, torch.Generator().manual_seed(0))
    assert sequences.shape == (500, length, 2)
    for numbers, marks, total in zip(sequences[..., 0], sequences[..., 1], sums, strict=True):
        first, second = marks.nonzero().flatten().tolist()
        assert marks.sum() == 2
        assert first < length // 2 <= second
        assert total == pytest.approx(float(numbers[first] + numbers[second]))


def test_marks_reach_every_step_and_numbers_are_uniform() -> None:
    sequences, _ = draw(4000, 5, torch.Generator().manual_seed(1))
    shares = sequences[..., 1].mean(0).tolist()
    assert shares == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3], abs=0.03)
    assert sequences[..., 0].mean() == pytest.approx(0.5, abs=0.01)
    assert sequences[..., 0].var() == pytest.approx(1 / 12, rel=0.03)


def test_the_worst_is_that_of_always_answering_1() -> None:
    _, sums = draw(100_000, 2, torch.Generator().manual_seed(2))
    assert float((sums - 1).square().mean()) == pytest.approx(Adding.metric.worst, rel=0.02)


def test_the_test_set_is_the_same_in_every_run_and_not_the_validation_set() -> None:
    one, other = (Adding(length=9).data(Source()) for _ in range(2))
    for split in ("test", "validation"):
        assert torch.equal(one[split][0], other[split][0])
    assert not torch.equal(one["test"][0], one["validation"][0])


def test_a_relu_network_begins_at_the_identity() -> None:
    network = Adder("irnn", 5)
    assert torch.equal(network.recurrent.weight_hh_l0, torch.eye(5))
    assert not network.recurrent.bias_hh_l0.any()
    assert network.recurrent.nonlinearity == "relu"


@pytest.mark.parametrize("cell", ["rnn", "irnn", "lstm", "gru"])
def test_the_answer_depends_on_the_first_step(cell: str) -> None:
    task = Adding(cell=cell, hidden=4, length=6)
    network = task.players(RunConfig(task="adding"))
    sequences = draw(3, 6, torch.Generator().manual_seed(0))[0].requires_grad_()
    answers = network(sequences)
    assert answers.shape == (3,)
    answers.sum().backward()
    assert sequences.grad is not None
    assert sequences.grad[:, 0].abs().sum() > 0
