"""Scopes: which gradients share one norm, how norms are measured, how factors are applied.

A `Groups` is laid out once for a list of parameters and a scope (`gclip.clipping.group_layout`);
after that it turns gradients into norms ``(groups,)`` (`gclip.clipping.group_norms`) and back,
writing the gradients once for the factors. Nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gclip.clipping.group_norms import GroupNorms
from gclip.clipping.norms import multiply
from gclip.core.host import on_host


class Groups(GroupNorms):
    """The groups that a scope makes of some parameters: measured, and multiplied by factors.

    Arguments and attributes as of `gclip.clipping.group_layout.GroupLayout`.
    """

    def views(self, tensors: Sequence[Any]) -> list[Any]:
        """The tensors, sharing memory, with the dimensions that the entries of `split` have.

        Most are returned as they are.
        """
        if self._simple:
            return list(tensors)
        return [
            None if tensor is None else units.view(tensor)
            for tensor, units in zip(tensors, self.units, strict=True)
        ]

    def split(self, values: Tensor) -> list[Tensor]:
        """A ``(groups,)`` tensor as one entry a parameter, to broadcast against its `views`.

        Use the entries before the next call: for units they are views of one reused buffer.
        """
        if self.scope == "global":
            return [values.reshape(())] * len(self.shapes)
        if self.scope == "layer":
            return list(values[self.layer_indices(values.device)].unbind(0))
        if self.scope == "unit":
            if torch.compiler.is_compiling():
                pairs = zip(torch.split(values, self.unit_counts), self.units, strict=True)
                return [own.reshape(units.column) for own, units in pairs]
            key = (values.device, values.dtype)
            self.slots(key)
            self._buffers[key].copy_(values)
            return self._columns[key]
        return list(values.unbind(0))

    def summed(self, sums: Tensor) -> Tensor:
        """Sums over each tensor's elements, ``(tensors, …)``, of all processes that hold some."""
        return sums

    def scale(self, tensors: Sequence[Tensor | None], factor: Tensor, clipped: Tensor) -> None:
        """Multiply every group by its factor ``(groups,)``, in place, where any is `clipped`."""
        if self.scope == "global":
            multiply([t for t in tensors if t is not None], factor.reshape(()))
            return
        scaled, factors, device = [], [], factor.device
        for tensor, own, change in zip(
            self.views(tensors), self.split(factor), self.changed(clipped), strict=True
        ):
            if tensor is not None and change:
                scaled.append(tensor)
                factors.append(own if tensor.device == device else own.to(tensor.device))
        if scaled:
            torch._foreach_mul_(scaled, factors)

    def changed(self, clipped: Tensor) -> Sequence[bool]:
        """For each parameter, whether any of its groups is `clipped`; on a GPU, always True.

        On a CPU, tensors of which no group changes need not be written to.
        """
        count = len(self.shapes)
        if not on_host(clipped):
            return [True] * count
        mask = clipped.numpy()
        if self.scope == "global":
            return [bool(mask[0])] * count
        if self.scope == "layer":
            return list(mask[self.layer_indices(clipped.device).numpy()])
        if self.scope == "unit":
            return list(np.logical_or.reduceat(mask, self.starts))
        return list(mask)
