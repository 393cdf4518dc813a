"""torch's optimizers over stacks of parameters, with a learning rate for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gclip.clipping.state import copied
from gclip.core.host import on_host
from gclip.training.config import RunConfig
from gclip.training.fleet.per_run_optimizer import ParameterState, PerRunOptimizer
from gclip.training.loop import build_optimizer


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
        self._per_run: PerRunOptimizer | None = None
        self._has_stepped = False  # all runs took the first step
        self._saved: list[Tensor] | dict[int, list[ParameterState]] | None = None
        self._before_step: list[Tensor] = []  # as large as the parameters; made when rates differ
        self._rate_columns: list[Tensor] = []

    def _build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return build_optimizer(self._config, parameters, self._device)

    def set_rates(self, rates: Sequence[float]) -> None:
        """The runs' learning rates from the next step on."""
        same = len(set(rates)) == 1
        for group in self.optimizer.param_groups:
            group["lr"] = rates[0] if same else 1.0
        self._rate_columns = []
        if same:
            return
        each = torch.tensor(rates, dtype=torch.float32).to(self._device, non_blocking=True)
        self._rate_columns = [each.view(-1, *[1] * (p.ndim - 1)) for p in self._parameters]
        if not self._before_step:
            self._before_step = [torch.empty_like(p) for p in self._parameters]

    @torch.no_grad()
    def step(self, skipped: Tensor) -> None:
        """One step of every run but those where `skipped`, bool ``(runs,)``, is true."""
        if not on_host(skipped) and self._has_stepped and self._in_stacks(skipped.device):
            now = self._all_tensors()
            before = [each.clone() for each in now]
            self._step([False] * len(skipped))
            _restore_where(skipped, now, before)
            return
        skip_list: list[bool] = skipped.tolist()
        if any(skip_list):
            self._split()
        else:
            self._has_stepped = True
        self._step(skip_list)

    @torch.no_grad()
    def save(self, runs: slice) -> None:
        """Before a step that some of these runs may have to take back: copy their state.

        Takes as much memory as that.
        """
        if self._device.type != "cpu" and self._has_stepped and self._in_stacks(self._device):
            self._saved = [each.clone() for each in self._all_tensors()]
            return
        states = self._states()
        self._saved = {
            run: [{name: value.clone() for name, value in each.items()} for each in states[run]]
            for run in range(len(states))[runs]
        }

    @torch.no_grad()
    def restore(self, skipped: Tensor) -> None:
        """Give the runs where `skipped` is true the state that they had at `save`."""
        saved, self._saved = self._saved, None
        if isinstance(saved, list):
            _restore_where(skipped, self._all_tensors(), saved)
            return
        skip_list: list[bool] = skipped.tolist()
        if saved is None or not any(skip_list):
            return
        per_run = self._split()
        for run, states in saved.items():
            if skip_list[run]:
                per_run.restore(run, states)

    def select_runs(self, indices: Sequence[int], parameters: Sequence[nn.Parameter]) -> None:
        """Go on with only these runs, whose parameters are now `parameters`."""
        old, states = self._parameters, self.optimizer.state
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self._parameters = list(parameters)
        self.optimizer = self._build(self._parameters)
        if self._per_run is not None:
            all_states = self._per_run.states()
            selected = [all_states[index] for index in indices]
            self._per_run = PerRunOptimizer(self._build, self._parameters, selected)
            self.optimizer.state.clear()
        index = torch.tensor(indices, device=self._device)
        for before, parameter in zip(old, self._parameters, strict=True):
            if before in states:
                self.optimizer.state[parameter] = {
                    name: _select(value, before, index) for name, value in states[before].items()
                }
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._before_step, self._rate_columns = [], []

    def state_dict(self) -> dict[str, Any]:
        """What the optimizer remembers: of the stacks, or of each run where they have split."""
        split = [] if self._per_run is None else self._per_run.states()
        named = [item for of_run in split for state in of_run for item in state.items()]
        return {
            "stacks": self.optimizer.state_dict(),
            "split": [[copied(state) for state in of_run] for of_run in split],
            # Some of torch's optimizers count steps there.
            "on_host": sorted({name for name, value in named if value.device.type == "cpu"}),
            "has_stepped": self._has_stepped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, with stacks of the same runs."""
        self.optimizer.load_state_dict(state["stacks"])
        self._has_stepped = state["has_stepped"]
        if state["split"]:

            def moved(name: str, value: Tensor) -> Tensor:
                return value if name in state["on_host"] else value.to(self._device)

            states = [
                [{name: moved(name, value) for name, value in each.items()} for each in of_run]
                for of_run in state["split"]
            ]
            self._per_run = PerRunOptimizer(self._build, self._parameters, states)

    # -- inside ------------------------------------------------------------------------------

    def _step(self, skip_list: Sequence[bool]) -> None:
        parameters = [parameter.detach() for parameter in self._parameters]
        if self._rate_columns:
            torch._foreach_copy_(self._before_step, parameters)
        if self._per_run is None:
            self.optimizer.step()
        else:
            self._per_run.step(self.optimizer.param_groups[0]["lr"], skip_list)
        if not self._rate_columns:
            return
        for before, parameter, rates in zip(
            self._before_step, parameters, self._rate_columns, strict=True
        ):
            # In place: a recorded pass reads the parameters from where they were.
            torch.lerp(before, parameter, rates, out=parameter)
            for run, out in enumerate(skip_list):
                if out:
                    parameter[run] = before[run]

    def _split(self) -> PerRunOptimizer:
        """From now on each run has an optimizer of its own."""
        if self._per_run is None:
            self._per_run = PerRunOptimizer(self._build, self._parameters, self._states())
            self.optimizer.state.clear()
        return self._per_run

    def _states(self) -> list[list[ParameterState]]:
        """``[run][parameter]``: what is remembered of each run, not copied."""
        if self._per_run is not None:
            return self._per_run.states()
        state_of = self.optimizer.state
        return [
            [
                {name: _of_run(value, run, p) for name, value in state_of.get(p, {}).items()}
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
        if shared and self._per_run is None:  # one count of steps for all: each gets its own
            self._split()
        if self._per_run is not None and self._per_run.stacked is None:
            return False
        return all(each.device == device for each in self._all_tensors())

    def _all_tensors(self) -> list[Tensor]:
        """The parameters and all of the state, with one entry a run."""
        parameters = [p.detach() for p in self._parameters]
        if self._per_run is not None:
            return [*parameters, *(self._per_run.stacked or [])]
        return [*parameters, *(v for s in self.optimizer.state.values() for v in s.values())]


def _restore_where(runs: Tensor, now: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Where `runs`, bool ``(runs,)``, is true: what was there before."""
    for each, old in zip(now, before, strict=True):
        each.copy_(torch.where(runs.view(-1, *[1] * (each.ndim - 1)), old, each))


def _of_run(value: Any, run: int, parameter: nn.Parameter) -> Any:
    """One run's part of the state; what all share (the count of steps) as it is."""
    return value[run] if value.shape == parameter.shape else value


def _select(value: Any, parameter: nn.Parameter, index: Tensor) -> Any:
    """State with an entry a run is cut; what all share (the count of steps) stays."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return value[index].clone()
    return value
