"""What an optimizer's step changes, kept so that a step can be left out after it has begun."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from gclip.clipping.dtensor import local
from gclip.core.host import on_host


class StepSnapshot:
    """An optimizer's parameters and state as they are now.

    It costs a copy of both (with momentum the state is as large as the parameters, with Adam's
    moments twice as large), so it is taken only where a step cannot be left out beforehand.

    Args:
        optimizer: any of torch's, whose state may come into being only with its first step; None
            for parameters alone.
        params: which parameters; all of the optimizer's by default.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer | None, params: Iterable[Tensor] | None = None
    ) -> None:
        if params is None:
            groups = [] if optimizer is None else optimizer.param_groups
            params = [p for group in groups for p in group["params"]]
        self._params = [(p.detach(), p.detach().clone()) for p in params]
        self._now: dict[Any, Any] = {} if optimizer is None else optimizer.state
        self._state = {p: _copied(state) for p, state in self._now.items()}

    @torch.no_grad()
    def same_parameters(self) -> bool:
        """Whether no parameter has changed since."""
        return all(torch.equal(p, saved) for p, saved in self._params)

    @torch.no_grad()
    def restore(self) -> None:
        """Put parameters and state back as they were, bit for bit."""
        for param, saved in self._params:
            param.copy_(saved)
        for key in list(self._now):
            if key not in self._state:
                del self._now[key]
        for key, state in self._state.items():
            _put_back(self._now[key], state)

    @torch.no_grad()
    def restore_if(self, skipped: Tensor) -> None:
        """`restore` where `skipped`, bool ``(1,)``, is true.

        A GPU is waited for only where the state is not all on it, or came with this step.
        """
        if on_host(skipped) or not self._masked(skipped.device):
            if bool(skipped):
                self.restore()
            return
        pairs = list(self._params)
        for key, saved in self._state.items():
            pairs += [(self._now[key][name], saved[name]) for name in saved]
        flag = skipped.view(())
        for now, before in pairs:
            own = local(now)
            own.copy_(torch.where(flag, local(before), own))

    def _masked(self, device: torch.device) -> bool:
        """Whether a mask on `device` can put everything back."""
        return (
            all(param.device == device for param, _ in self._params)
            and self._now.keys() == self._state.keys()
            and all(self._now[key].keys() == saved.keys() for key, saved in self._state.items())
            and lives_on(self._now, device)
        )


def lives_on(state: Mapping[Any, Mapping[str, Any]], device: torch.device) -> bool:
    """Whether all that an optimizer's `state` holds are tensors on `device`."""
    return all(
        isinstance(value, Tensor) and value.device == device
        for each in state.values()
        for value in each.values()
    )


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else deepcopy(value)
        for name, value in state.items()
    }


def _put_back(now: dict[str, Any], saved: Mapping[str, Any]) -> None:
    for name in list(now):
        if name not in saved:
            del now[name]
    for name, value in saved.items():
        present = now.get(name)
        if (
            isinstance(present, Tensor)
            and isinstance(value, Tensor)
            and present.shape == value.shape
        ):
            present.copy_(value)  # whoever else holds it sees it too
        else:
            now[name] = value
