"""Runs that no longer step together: torch's optimizer over each run's own rows of the stacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

ParameterState: TypeAlias = dict[str, Any]
"""What torch's optimizers remember of one parameter."""


class PerRunOptimizer:
    """The runs' rows as parameters of their own, which share the stacks' memory.

    So every run has its own count of steps, and one that leaves a step out is not touched at all.

    Args:
        build: makes the optimizer of the rows.
        states: ``[run][stack]``: what each run's optimizer remembers; it is copied.
    """

    def __init__(
        self,
        build: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        stacks: Sequence[nn.Parameter],
        states: Sequence[Sequence[ParameterState]],
    ) -> None:
        self._stacks = list(stacks)
        self._rows = [[nn.Parameter(s.detach()[run]) for s in stacks] for run in range(len(states))]
        self._optimizer = build([row for rows in self._rows for row in rows])
        self._optimizer.state.clear()
        self._optimizer.param_groups.append({**self._optimizer.param_groups[0], "params": []})
        self._stacked: list[Tensor] = []
        for place in range(len(stacks)):
            self._take_over(place, [of_run[place] for of_run in states])

    def _take_over(self, place: int, states: Sequence[ParameterState]) -> None:
        rows, mine = [rows[place] for rows in self._rows], self._optimizer.state
        names = states[0].keys()
        if any(state.keys() != names for state in states):
            for row, state in zip(rows, states, strict=True):
                if state:
                    mine[row] = {name: value.clone() for name, value in state.items()}
            return
        for name in names:
            together = torch.stack([state[name] for state in states])
            for row, own in zip(rows, together.unbind(), strict=True):
                mine[row][name] = own
            self._stacked.append(together)

    @property
    def stacked(self) -> list[Tensor] | None:
        """All of the state, in tensors whose first dimension is the runs and of which theirs are
        views; None where some of it came later, or not all runs have it."""
        count = sum(len(state) for state in self._optimizer.state.values())
        return self._stacked if count == len(self._stacked) * len(self._rows) else None

    def step(self, rate: float, left_out: Sequence[bool]) -> None:
        """One step of the runs that are not `left_out`, with the learning rate `rate`."""
        # torch's fused SGD takes parameters that have momentum or such that have none, not both.
        begun, fresh = self._optimizer.param_groups
        begun["lr"] = fresh["lr"] = rate
        every = [row for rows in self._rows for row in rows]
        begun["params"] = [row for row in every if row in self._optimizer.state]
        fresh["params"] = [row for row in every if row not in self._optimizer.state]
        for place, stack in enumerate(self._stacks):
            for run, grad in enumerate(() if stack.grad is None else stack.grad.unbind()):
                self._rows[run][place].grad = None if left_out[run] else grad
        self._optimizer.step()
        self._optimizer.zero_grad()

    def states(self) -> list[list[ParameterState]]:
        """``[run][stack]``: what each run's optimizer remembers, not copied."""
        known = self._optimizer.state
        return [[known.get(row, {}) for row in rows] for rows in self._rows]

    def put_back(self, run: int, states: Sequence[ParameterState]) -> None:
        """Let a run remember what `states`, one a stack, say."""
        known = self._optimizer.state
        for row, state in zip(self._rows[run], states, strict=True):
            if not state:
                known.pop(row, None)
                continue
            for name, value in state.items():
                known[row][name].copy_(value)
