"""What an optimizer's step changes, kept so that a step can be left out after it has begun."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor


class StepSnapshot:
    """An optimizer's parameters and state as they are now.

    It costs a copy of both, so it is taken only where a step cannot be left out beforehand.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._params: list[tuple[Tensor, Tensor]] = [
            (p, p.detach().clone()) for group in optimizer.param_groups for p in group["params"]
        ]
        self._state: dict[Any, Any] = {p: deepcopy(s) for p, s in optimizer.state.items()}

    @torch.no_grad()
    def same_parameters(self) -> bool:
        """Whether no parameter has changed since."""
        return all(torch.equal(p, kept) for p, kept in self._params)

    @torch.no_grad()
    def restore(self) -> None:
        """Put parameters and state back as they were."""
        for p, kept in self._params:
            p.copy_(kept)
        self._optimizer.state.clear()
        self._optimizer.state.update(self._state)
