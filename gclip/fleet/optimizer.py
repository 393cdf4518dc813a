"""torch's optimizers over stacks of parameters, with a learning rate for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gclip.training import RunConfig, optimizers


class StackedOptimizer:
    """One optimizer for all runs.

    Where the runs' learning rates agree, that is the optimizer's. Where they differ, it makes its
    step with learning rate 1 and each run goes a part of it: the steps of all of torch's
    optimizers that a run can have are proportional to the learning rate, decoupled weight decay
    and all.

    Attributes:
        optimizer: torch's. Its ``lr`` is right only where all runs have the same.
    """

    def __init__(
        self, config: RunConfig, parameters: Sequence[nn.Parameter], device: torch.device
    ) -> None:
        self._config, self._device = config, device
        self._parameters = list(parameters)
        self.optimizer = self._build()
        self._spare: list[Tensor] = []  # as large as the parameters; made when rates differ
        self._rates: Tensor | None = None
        self._columns: list[Tensor] = []

    def _build(self) -> torch.optim.Optimizer:
        config = self._config
        return optimizers.build(
            config.optimizer,
            self._parameters,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            settings=config.settings,
            device=self._device,
        )

    def set_rates(self, rates: Sequence[float]) -> None:
        """The runs' learning rates from the next step on."""
        same = len(set(rates)) == 1
        for group in self.optimizer.param_groups:
            group["lr"] = rates[0] if same else 1.0
        self._columns = []
        if same:
            return
        each = torch.tensor(rates, dtype=torch.float32).to(self._device, non_blocking=True)
        self._columns = [each.view(-1, *[1] * (p.ndim - 1)) for p in self._parameters]
        if not self._spare:
            self._spare = [torch.empty_like(p) for p in self._parameters]

    @torch.no_grad()
    def step(self) -> None:
        """One step of every run."""
        if not self._columns:
            self.optimizer.step()
            return
        before = self._spare
        torch._foreach_copy_(before, [p.detach() for p in self._parameters])
        self.optimizer.step()
        after: list[Tensor] = [p.data for p in self._parameters]
        for place, parameter in enumerate(self._parameters):
            # The values land in the spare memory; exchanging the two saves copying them back.
            parameter.data = before[place].lerp_(after[place], self._columns[place])
        self._spare = after

    def keep(self, places: Sequence[int], parameters: Sequence[nn.Parameter]) -> None:
        """Go on with only these runs, whose parameters are now `parameters`."""
        old, states = self._parameters, self.optimizer.state
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self._parameters = list(parameters)
        self.optimizer = self._build()
        index = torch.tensor(places, device=self._device)
        for before, parameter in zip(old, self._parameters, strict=True):
            if before in states:
                self.optimizer.state[parameter] = {
                    name: _kept(value, before, index) for name, value in states[before].items()
                }
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._spare, self._columns = [], []


def _kept(value: Any, parameter: nn.Parameter, index: Tensor) -> Any:
    """State with an entry a run is cut; what all share (the count of steps) stays."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return value[index].clone()
    return value
