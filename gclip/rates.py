"""What strategies may know of the optimizer: its learning rates and weight decays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gclip.errors import UsageError
from gclip.scopes import Groups
from gclip.strategy import Rate


class Rates:
    """The learning rate and weight decay of some parameters, as an optimizer has them now.

    Raises:
        UsageError: a parameter that the optimizer does not hold.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> None:
        self._optimizer = optimizer
        home = {id(p): i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
        if any(id(p) not in home for p in params):
            raise UsageError("the clipper has parameters that the given optimizer does not hold")
        self._homes = [home[id(p)] for p in params]

    def each(self, key: str) -> list[Rate]:
        """One value a parameter: ``lr`` or ``weight_decay``."""
        values = [group.get(key, 0.0) for group in self._optimizer.param_groups]
        return [values[home] for home in self._homes]

    def spread(
        self, key: str, groups: Groups, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Rate:
        """One number where all parameters agree, else one a group, ``(groups,)`` of `dtype`.

        Raises:
            UsageError: parameters that share one norm differ.
        """
        values = self.each(key)
        first = values[0]
        if all(value is first or _same(value, first) for value in values):
            return first if isinstance(first, Tensor) else float(first)
        if groups.scope in ("global", "layer"):
            raise UsageError(
                f"the parameter groups of the optimizer differ in {key}, so one norm for several "
                "of them has none; use scope=tensor or scope=unit"
            )
        each = torch.stack([torch.as_tensor(v, dtype=dtype).to(device) for v in values])
        return groups.spread(each)


def _same(a: Rate, b: Rate) -> bool:
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b
