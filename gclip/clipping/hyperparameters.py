"""What strategies may know of the optimizer: its learning rates and weight decays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import torch
from torch import Tensor

from gclip.clipping.groups import Groups
from gclip.core.seen import Rate
from gclip.errors import UsageError


class OptimizerHyperparameters:
    """The learning rate and weight decay of some parameters, as an optimizer has them now.

    Raises:
        UsageError: a parameter that the optimizer does not hold, unless it is frozen.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> None:
        self._optimizer = optimizer
        group_index = {id(p): i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
        self._group_indices = [group_index.get(id(p)) for p in params]
        self._params = params
        self._refuse()

    def each(self, key: str) -> list[Rate]:
        """One value a parameter: ``lr`` or ``weight_decay``; 0 where the optimizer has it not.

        Raises:
            UsageError: that parameter is frozen no more.
        """
        values = [group.get(key, 0.0) for group in self._optimizer.param_groups]
        if None in self._group_indices:
            self._refuse()
        return [
            0.0 if group_index is None else values[group_index]
            for group_index in self._group_indices
        ]

    def _refuse(self) -> None:
        pairs = zip(self._group_indices, self._params, strict=True)
        if any(group_index is None and param.requires_grad for group_index, param in pairs):
            raise UsageError("the clipper has parameters that the given optimizer does not hold")

    def spread(
        self,
        key: str,
        groups: Groups,
        device: torch.device,
        trained: Sequence[bool] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Rate:
        """One number where all `trained` parameters agree, else one a group, ``(groups,)`` of
        `dtype`.

        Args:
            key: ``lr`` or ``weight_decay``.
            groups: that have one entry each.
            device: of the entries, where groups differ.
            trained: of each parameter, whether it is not frozen.
            dtype: of the entries.

        Raises:
            UsageError: parameters that share one norm differ.
        """
        values = self.each(key)
        compared = values if trained is None else list(compress(values, trained)) or values
        first = compared[0]
        if all(value is first or _same(value, first) for value in compared):
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
