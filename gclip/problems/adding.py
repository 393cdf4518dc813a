"""Two numbers to add in a long sequence: the test of long-term dependencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.core.fields import setting
from gclip.training.config import RunConfig
from gclip.training.metric import Metric
from gclip.training.problem import Losses, Problem, Source
from gclip.training.run_state import RunState
from gclip.training.tasks import register_problem

Batch = tuple[Tensor, Tensor]
Cell = Literal["rnn", "irnn", "lstm", "gru"]

_TESTED = 1000  # sequences of the test set, and of the validation set
_SEEDS = {"test": 1997, "validation": 735}


def draw(count: int, length: int, generator: torch.Generator) -> Batch:
    """Sequences and their sums.

    Args:
        count: how many.
        length: of each, in steps.
        generator: on the CPU.

    Returns:
        ``(count, length, 2)``: at each step a number uniform in [0, 1) and a mark, 1 at one step of
        the first half and at one of the second, else 0; and ``(count,)``: the sum of the two marked
        numbers.
    """
    numbers = torch.rand(count, length, generator=generator)
    half = length // 2
    first = torch.randint(0, half, (count,), generator=generator)
    second = torch.randint(half, length, (count,), generator=generator)
    marks = F.one_hot(first, length) + F.one_hot(second, length)
    return torch.stack((numbers, marks.float()), -1), (numbers * marks).sum(1)


class Adder(nn.Module):
    """A recurrent layer, and a number from where it stands at the end.

    Args:
        cell: ``rnn`` (tanh), ``irnn`` (ReLU, begun at the identity), ``lstm`` or ``gru``.
        hidden: units.
    """

    def __init__(self, cell: Cell, hidden: int) -> None:
        super().__init__()
        self.recurrent: nn.RNNBase
        if cell == "lstm":
            self.recurrent = nn.LSTM(2, hidden, batch_first=True)
        elif cell == "gru":
            self.recurrent = nn.GRU(2, hidden, batch_first=True)
        else:
            kind = "relu" if cell == "irnn" else "tanh"
            self.recurrent = nn.RNN(2, hidden, batch_first=True, nonlinearity=kind)
        self.out = nn.Linear(hidden, 1)
        if cell == "irnn":
            self._begin_at_identity()

    def _begin_at_identity(self) -> None:
        # Le, Jaitly & Hinton (2015), but that all else has a deviation of 0.1 in place of 0.001,
        # from which it takes longer to begin to learn than a default run lasts.
        for name, parameter in self.named_parameters():
            if name == "recurrent.weight_hh_l0":
                nn.init.eye_(parameter)
            elif "bias" in name:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.1)

    def forward(self, sequences: Tensor) -> Tensor:
        """``(batch, length, 2)`` → ``(batch,)``."""
        states, _ = self.recurrent(sequences)
        numbers: Tensor = self.out(states[:, -1]).squeeze(-1)
        return numbers


@register_problem("adding")
@dataclass(frozen=True, kw_only=True)
class Adding(Problem):
    """Add the two marked numbers of a long sequence (Hochreiter & Schmidhuber, 1997).

    Always answering 1 makes an error of 1/6, which is what a diverged run scores.

    The default network is one of ReLUs that begins at the identity (Le, Jaitly & Hinton, 2015, who
    clip), so that its gradients reach far back, and explode. The defaults are found by a short
    search over rates and optimizers on three seeds: at this rate gradient descent with ``norm``
    learns in 1,200 steps, and without clipping a few huge steps leave most networks with dead units
    that answer a constant. Adam needs no clipping to learn here (``--optimizer adam --lr 0.003``),
    though it too ends closer with it; a tanh network (``cell=rnn``) learns nothing in so few steps
    either way.
    """

    length: int = setting(20, at_least=2, doc="steps of a sequence")
    cell: Literal["rnn", "irnn", "lstm", "gru"] = setting(
        "irnn", choices=("rnn", "irnn", "lstm", "gru"), doc="recurrent layer"
    )
    hidden: int = setting(32, at_least=1, doc="units of the recurrent layer")
    steps: int = setting(150, at_least=1, doc="batches an epoch")

    metric = Metric("mean squared error", better="lower", worst=1 / 6, low=0.0, decimals=4)
    defaults = {"optimizer": "sgd", "lr": 0.01, "batch_size": 32, "epochs": 8}
    small = {"epochs": 2, "steps": 4, "length": 6, "hidden": 8}

    def data(self, source: Source) -> dict[str, Batch]:
        """1,000 sequences to test on and 1,000 to validate on, the same in every run."""
        return {
            split: draw(_TESTED, self.length, torch.Generator().manual_seed(seed))
            for split, seed in _SEEDS.items()
        }

    def players(self, config: RunConfig) -> nn.Module:
        """The recurrent network."""
        return Adder(self.cell, self.hidden)

    def batches_per_epoch(self, state: RunState) -> int:
        """As the field says."""
        return self.steps

    def batches(self, state: RunState, epoch: int) -> Iterator[Batch]:
        """Sequences that no other batch has."""
        generator = state.generator("batches")
        for _ in range(self.steps):
            sequences, sums = draw(state.config.batch_size, self.length, generator)
            yield sequences.to(state.device), sums.to(state.device)

    def losses(self, players: Mapping[str, nn.Module], batch: Any) -> Losses:
        """The mean squared error."""
        sequences, sums = batch
        yield "model", F.mse_loss(players["model"](sequences), sums)

    def evaluate(
        self, players: Mapping[str, nn.Module], state: RunState, split: str
    ) -> Mapping[str, float]:
        """The mean squared error on the split."""
        sequences, sums = state.data[split]
        error = F.mse_loss(players["model"](sequences), sums)
        return {self.metric.name: float(error)}
