"""The learning rates of a fleet: each run's own, or those of the optimizer that steps all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gclip.clipping import hyperparameters
from gclip.core.seen import Rate
from gclip.errors import UsageError
from gclip.training.fleet.stacked_groups import StackedGroups


class FleetHyperparameters:
    """Learning rate and weight decay, as strategies may ask for them.

    Args:
        optimizer: of the stacks.
        each: ``(runs,)``: every run's own learning rate, in place of the optimizer's.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer | None, stacks: Sequence[Tensor],
        each: Tensor | None, runs: int,
    ) -> None:  # fmt: skip
        self._optimizer, self._stacks = optimizer, stacks
        if each is not None and each.shape != (runs,):
            raise UsageError(
                f"rates holds one learning rate a run, ({runs},), but has the shape "
                f"{tuple(each.shape)}"
            )
        self._each = None if each is None else each.detach().view(-1, 1)

    def known(self, key: str) -> bool:
        return self._optimizer is not None or (key == "lr" and self._each is not None)

    def spread(
        self, key: str, view: StackedGroups, device: torch.device, dtype: torch.dtype
    ) -> Rate:
        """A number, ``(groups,)`` where the optimizer's parameter groups differ, or
        ``(runs, 1)``."""
        if key == "lr" and self._each is not None:
            return self._each.to(device, dtype)
        mine = [self._stacks[i] for i in view.places]
        trained = [stack.requires_grad for stack in mine]
        return self._of(mine).spread(key, view.groups, device, trained, dtype=dtype)

    def single(self, key: str, place: int, device: torch.device, dtype: torch.dtype) -> Rate:
        """Of one parameter: a number, or ``(runs, 1)``."""
        if key == "lr" and self._each is not None:
            return self._each.to(device, dtype)
        return self._of([self._stacks[place]]).each(key)[0]

    def rows(self, span: slice) -> FleetHyperparameters:
        """Of the runs in `span` alone."""
        each = None if self._each is None else self._each[span].view(-1)
        count = 0 if each is None else len(each)
        return FleetHyperparameters(self._optimizer, self._stacks, each, count)

    def _of(self, stacks: Sequence[Tensor]) -> hyperparameters.OptimizerHyperparameters:
        assert self._optimizer is not None, "asked for what is not known"
        return hyperparameters.OptimizerHyperparameters(self._optimizer, stacks)
