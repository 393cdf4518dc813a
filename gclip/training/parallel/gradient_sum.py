"""Add up what all processes have computed of a step: one collective, however many tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gclip.errors import UsageError
from gclip.training.parallel.world import World


class GradientSum:
    """Makes each gradient, and the loss, the sum over all processes.

    Each process's loss is its rows' share of the batch's mean, so that sums are what one process
    would have. Which parameters have a gradient is agreed on in the first step.

    Args:
        world: the processes.
        parameters: whose gradients are added up.
    """

    def __init__(self, world: World, parameters: Sequence[Tensor]) -> None:
        self._world, self._parameters = world, list(parameters)
        self._present: list[bool] | None = None

    def __call__(self, loss: Tensor, *, idle: bool) -> Tensor:
        """The batch's loss; afterwards the gradients are the batch's.

        Args:
            loss: of this process's rows, times their share of the step, shape ().
            idle: whether this process had no rows, so that it adds nothing.

        Raises:
            UsageError: other parameters have gradients than in the first step, or sparse ones.
        """
        total = loss.detach().clone().view(1)
        self._world.add_up(*self._gradients(idle), total)
        return total.view(())

    def _gradients(self, idle: bool) -> list[Tensor]:
        own = [parameter.grad is not None for parameter in self._parameters]
        if self._present is None:
            counts = torch.tensor(own, dtype=torch.int32)
            self._world.add_up(counts)
            self._present = (counts > 0).tolist()
        if own != self._present and not idle:
            raise UsageError(
                "which parameters have a gradient depends on the rows of a batch, which processes "
                "that have different rows cannot follow; train this model in one process"
            )
        found: list[Tensor] = []
        for parameter, present in zip(self._parameters, self._present, strict=True):
            if not present:
                parameter.grad = None
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad.is_sparse:
                raise UsageError(
                    "sparse gradients are not added up over processes; make the embedding with "
                    "sparse=False, or train in one process"
                )
            found.append(parameter.grad)
        return found
