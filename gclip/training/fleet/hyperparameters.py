"""The learning rates of a fleet: each run's own, or those of the optimizer that steps all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gclip.clipping.hyperparameters import OptimizerHyperparameters
from gclip.core.seen import Rate
from gclip.errors import UsageError
from gclip.training.fleet.stacked_groups import StackedGroups


class FleetHyperparameters:
    """Learning rate and weight decay, as strategies may ask for them.

    Args:
        optimizer: of the stacks.
        stacks: the parameters, each ``(runs, *shape)``.
        rates: ``(runs,)``: every run's own learning rate, in place of the optimizer's.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None,
        stacks: Sequence[Tensor],
        rates: Tensor | None,
    ) -> None:
        self._optimizer, self._stacks = optimizer, stacks
        self._rates = None if rates is None else rates.view(-1, 1)

    def known(self, key: str) -> bool:
        """Whether ``lr`` or ``weight_decay``, as `key` says, can be asked for."""
        return self._optimizer is not None or (key == "lr" and self._rates is not None)

    def by_group(
        self, key: str, groups: StackedGroups, device: torch.device, dtype: torch.dtype
    ) -> Rate:
        """A number; ``(groups,)`` where the optimizer's parameter groups differ; or ``(runs, 1)``.

        Args:
            key: ``lr`` or ``weight_decay``.
            groups: of a strategy.
            device, dtype: of the tensor, where it is one.

        Raises:
            UsageError: it is not `known`.
        """
        if key == "lr" and self._rates is not None:
            return self._rates.to(device, dtype)
        stacks = [self._stacks[i] for i in groups.indices]
        trained = [stack.requires_grad for stack in stacks]
        return self._of(key, stacks).spread(key, groups.single_run, device, trained, dtype=dtype)

    def of_parameter(self, key: str, index: int, device: torch.device, dtype: torch.dtype) -> Rate:
        """Of one parameter: a number, or ``(runs, 1)``.

        Args:
            key: ``lr`` or ``weight_decay``.
            index: of the parameter.
            device, dtype: of the tensor, where it is one.

        Raises:
            UsageError: it is not `known`.
        """
        if key == "lr" and self._rates is not None:
            return self._rates.to(device, dtype)
        return self._of(key, [self._stacks[index]]).each(key)[0]

    def select_runs(self, span: slice) -> FleetHyperparameters:
        """Of the runs in `span` alone."""
        rates = None if self._rates is None else self._rates[span]
        return FleetHyperparameters(self._optimizer, self._stacks, rates)

    def _of(self, key: str, stacks: Sequence[Tensor]) -> OptimizerHyperparameters:
        if self._optimizer is None:
            raise UsageError(f"the optimizer's {key} is not known: FleetClipper(…, optimizer=…)")
        return OptimizerHyperparameters(self._optimizer, stacks)
