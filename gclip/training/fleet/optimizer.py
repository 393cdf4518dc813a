"""torch's optimizers over stacks of parameters, with a learning rate for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gclip.core.host import on_host
from gclip.training import optimizers
from gclip.training.config import RunConfig
from gclip.training.fleet.per_run_optimizer import ParameterState, PerRunOptimizer


class StackedOptimizer:
    """One optimizer for all runs.

    Where the runs' learning rates agree, that is the optimizer's. Where they differ, it makes its
    step with learning rate 1 and each run goes a part of it: the steps of all of torch's
    optimizers that a run can have are proportional to the learning rate, decoupled weight decay
    and all.

    A run that skips a step is left out of it: weights, momentum and its count of steps stay as they
    are. As torch counts the steps of a stack as one, the runs have optimizers of their own from the
    first step on that not all of them take (see `gclip.training.fleet.per_run_optimizer`). A GPU is
    not waited for: there all runs step, and what those changed that should not have is put back.
    The exceptions are those of `gclip.training.stepping`, for which a step waits for one look at
    the device.

    Attributes:
        optimizer: torch's. Its ``lr`` is right only where all runs have the same, and what it
            remembers only as long as all runs took the same steps.
    """

    def __init__(
        self, config: RunConfig, parameters: Sequence[nn.Parameter], device: torch.device
    ) -> None:
        self._config, self._device = config, device
        self._parameters = list(parameters)
        self.optimizer = self._build(self._parameters)
        self._apart: PerRunOptimizer | None = None
        self._begun = False  # all runs took the first step
        self._held: list[Tensor] | dict[int, list[ParameterState]] | None = None
        self._spare: list[Tensor] = []  # as large as the parameters; made when rates differ
        self._columns: list[Tensor] = []

    def _build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        config = self._config
        return optimizers.build(
            config.optimizer,
            parameters,
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
    def step(self, skipped: Tensor) -> None:
        """One step of every run but those where `skipped`, bool ``(runs,)``, is true."""
        if not on_host(skipped) and self._begun and self._in_stacks(skipped.device):
            now = self._everything()
            before = [each.clone() for each in now]
            self._advance([False] * len(skipped))
            _mask(skipped, now, before)
            return
        left_out: list[bool] = skipped.tolist()
        if any(left_out):
            self._separate()
        else:
            self._begun = True
        self._advance(left_out)

    @torch.no_grad()
    def hold(self, runs: slice) -> None:
        """Before a step that some of these runs may have to take back: keep what they remember.

        Takes as much memory as that.
        """
        if self._device.type != "cpu" and self._begun and self._in_stacks(self._device):
            self._held = [each.clone() for each in self._everything()]
            return
        states = self._states()
        self._held = {
            run: [{name: value.clone() for name, value in each.items()} for each in states[run]]
            for run in range(len(states))[runs]
        }

    @torch.no_grad()
    def put_back(self, skipped: Tensor) -> None:
        """Since `hold`, nothing happened to what the runs where `skipped` is true remember."""
        held, self._held = self._held, None
        if isinstance(held, list):
            _mask(skipped, self._everything(), held)
            return
        left_out: list[bool] = skipped.tolist()
        if held is None or not any(left_out):
            return
        apart = self._separate()
        for run, states in held.items():
            if left_out[run]:
                apart.put_back(run, states)

    def keep(self, places: Sequence[int], parameters: Sequence[nn.Parameter]) -> None:
        """Go on with only these runs, whose parameters are now `parameters`."""
        old, states = self._parameters, self.optimizer.state
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self._parameters = list(parameters)
        self.optimizer = self._build(self._parameters)
        if self._apart is not None:
            known = self._apart.states()
            kept = [known[place] for place in places]
            self._apart = PerRunOptimizer(self._build, self._parameters, kept)
            self.optimizer.state.clear()
        index = torch.tensor(places, device=self._device)
        for before, parameter in zip(old, self._parameters, strict=True):
            if before in states:
                self.optimizer.state[parameter] = {
                    name: _kept(value, before, index) for name, value in states[before].items()
                }
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._spare, self._columns = [], []

    # -- inside ------------------------------------------------------------------------------

    def _advance(self, left_out: Sequence[bool]) -> None:
        parameters = [parameter.detach() for parameter in self._parameters]
        if self._columns:
            torch._foreach_copy_(self._spare, parameters)
        if self._apart is None:
            self.optimizer.step()
        else:
            self._apart.step(self.optimizer.param_groups[0]["lr"], left_out)
        if not self._columns:
            return
        for before, parameter, rates in zip(self._spare, parameters, self._columns, strict=True):
            # In place: a recorded pass reads the parameters from where they were.
            torch.lerp(before, parameter, rates, out=parameter)
            for run, out in enumerate(left_out):
                if out:
                    parameter[run] = before[run]

    def _separate(self) -> PerRunOptimizer:
        """From now on each run has an optimizer of its own."""
        if self._apart is None:
            self._apart = PerRunOptimizer(self._build, self._parameters, self._states())
            self.optimizer.state.clear()
        return self._apart

    def _states(self) -> list[list[ParameterState]]:
        """``[run][parameter]``: what is remembered of each run, not copied."""
        if self._apart is not None:
            return self._apart.states()
        known = self.optimizer.state
        return [
            [
                {name: _of_run(value, run, p) for name, value in known.get(p, {}).items()}
                for p in self._parameters
            ]
            for run in range(len(self._parameters[0]))
        ]

    def _in_stacks(self, device: torch.device) -> bool:
        """Whether all there is stands in tensors on `device`, with one entry a run."""
        shared = any(
            value.shape != p.shape
            for p, state in self.optimizer.state.items()
            for value in state.values()
        )
        if shared and self._apart is None:  # one count of steps for all: each gets its own
            self._separate()
        if self._apart is not None and self._apart.stacked is None:
            return False
        return all(each.device == device for each in self._everything())

    def _everything(self) -> list[Tensor]:
        """The parameters and all that is remembered, with one entry a run."""
        parameters = [p.detach() for p in self._parameters]
        if self._apart is not None:
            return [*parameters, *(self._apart.stacked or [])]
        return [*parameters, *(v for s in self.optimizer.state.values() for v in s.values())]


def _mask(runs: Tensor, now: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """For the `runs` that it is true of, bool ``(runs,)``: what was there before."""
    for each, kept in zip(now, before, strict=True):
        each.copy_(torch.where(runs.view(-1, *[1] * (each.ndim - 1)), kept, each))


def _of_run(value: Any, run: int, parameter: nn.Parameter) -> Any:
    """One run's part of the state; what all share (the count of steps) as it is."""
    return value[run] if value.shape == parameter.shape else value


def _kept(value: Any, parameter: nn.Parameter, index: Tensor) -> Any:
    """State with an entry a run is cut; what all share (the count of steps) stays."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return value[index].clone()
    return value
