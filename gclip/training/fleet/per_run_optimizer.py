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
        for index in range(len(stacks)):
            self._copy_state(index, [of_run[index] for of_run in states])

    def _copy_state(self, index: int, states: Sequence[ParameterState]) -> None:
        rows, state_of = [rows[index] for rows in self._rows], self._optimizer.state
        names = states[0].keys()
        if any(state.keys() != names for state in states):
            for row, state in zip(rows, states, strict=True):
                if state:
                    state_of[row] = {name: value.clone() for name, value in state.items()}
            return
        for name in names:
            stacked = torch.stack([state[name] for state in states])
            for row, value in zip(rows, stacked.unbind(), strict=True):
                state_of[row][name] = value
            self._stacked.append(stacked)

    @property
    def stacked(self) -> list[Tensor] | None:
        """All of the state, in tensors whose first dimension is the runs and of which theirs are
        views; None where some of it came later, or not all runs have it."""
        count = sum(len(state) for state in self._optimizer.state.values())
        return self._stacked if count == len(self._stacked) * len(self._rows) else None

    def step(self, rate: float, skipped: Sequence[bool]) -> None:
        """One step of the runs that are not `skipped`, with the learning rate `rate`."""
        # torch's fused SGD takes parameters that have momentum or such that have none, not both.
        with_state, without = self._optimizer.param_groups
        with_state["lr"] = without["lr"] = rate
        every = [row for rows in self._rows for row in rows]
        with_state["params"] = [row for row in every if row in self._optimizer.state]
        without["params"] = [row for row in every if row not in self._optimizer.state]
        for index, stack in enumerate(self._stacks):
            for run, grad in enumerate(() if stack.grad is None else stack.grad.unbind()):
                self._rows[run][index].grad = None if skipped[run] else grad
        self._optimizer.step()
        self._optimizer.zero_grad()

    def states(self) -> list[list[ParameterState]]:
        """``[run][stack]``: what each run's optimizer remembers, not copied."""
        state_of = self._optimizer.state
        return [[state_of.get(row, {}) for row in rows] for rows in self._rows]

    def restore(self, run: int, states: Sequence[ParameterState]) -> None:
        """Let a run remember what `states`, one a stack, say."""
        state_of = self._optimizer.state
        for row, state in zip(self._rows[run], states, strict=True):
            if not state:
                state_of.pop(row, None)
                continue
            for name, value in state.items():
                state_of[row][name].copy_(value)
