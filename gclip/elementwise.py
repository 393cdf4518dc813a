"""A transform at work on some parameters: the part of a clipper that changes elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from gclip.decide import Decision, transformed
from gclip.norms import YES, on_host
from gclip.part import Part
from gclip.sample_part import SamplePart
from gclip.scopes import Groups
from gclip.sharded import Gathered, is_sharded, whole
from gclip.state import copied
from gclip.strategy import Elements, Memory, Rate, Strategy, Transform


class TransformPart(Part):
    """As `Part`: `take`, `measure`, `ask`, `clip`. Memory is kept for each parameter's name."""

    strategy: Transform

    def __init__(self, strategy: Transform, *args: Any, **settings: Any) -> None:
        super().__init__(strategy, *args, **settings)
        self._clamps, self._order = False, 2.0
        self._changed: list[Tensor | None] = []
        self.gradients: list[Tensor | None] = []  # on the update side: what the update came from

    @staticmethod
    def _group(strategy: Strategy, names: list[str], params: list[Tensor]) -> Groups:
        return Groups(names, [p.shape for p in params], "tensor")

    def _hold_shards(self, grads: list[Tensor | None]) -> None:
        for place, grad in enumerate(grads):
            if is_sharded(grad):
                full = Gathered(grad)
                grads[place] = full.values
                self._lent.append(full)

    @property
    def _by_element(self) -> bool:
        return True

    def ask(self, step: int, finite: Tensor) -> Tensor | None:
        """Compute the new values and the memory; a transform never skips a step."""
        strategy = cast(Transform, self.now(step))
        if self.memory is None:
            self.memory = {}
        valid = None if finite is YES else finite
        kept: dict[str, Memory] = dict(self.memory)
        left, flags = list(self._norm.unbind(0)), []
        self._changed = []
        for place, (name, grad) in enumerate(zip(self.groups.names, self._grads, strict=True)):
            new: Tensor | None = None
            if grad is not None and grad.numel() and not self._out_of_sight(grad):
                values = self._view(grad)
                if name not in kept:
                    kept[name] = strategy.remember(torch.zeros_like(values))
                seen = self._elements(place, values, step)
                new, kept[name] = transformed(strategy, seen, kept[name], valid)
            change = (
                _differs(new, self._view(grad)) if new is not None and grad is not None else None
            )
            if new is not None and not (change is not None and on_host(change) and not change):
                left[place] = torch.linalg.vector_norm(new).to(self._norm)
                self._changed.append(new)
            else:
                self._changed.append(None)
            flags.append(self._norm.new_zeros((), dtype=torch.bool) if change is None else change)
        self.memory = kept
        self.made = self._decision(torch.stack(left), torch.stack(flags).to(self._norm.device))
        return None

    def clip(self, recording: bool) -> None:
        """Write what changed into the gradients."""
        for grad, new in zip(self._grads, self._changed, strict=True):
            if grad is not None and new is not None:
                if grad.dtype.itemsize < new.dtype.itemsize:
                    # What was finite stays so: the largest half-precision number, not inf.
                    most = torch.finfo(grad.dtype).max
                    new = torch.where(new.isfinite(), new.clamp(-most, most), new)
                grad.copy_(new.reshape(grad.shape))
        self._give_back()
        self._changed = []
        self.total_after = self.made.clipped_norm

    def take_over(self, memory: Any, groups: Sequence[str]) -> None:
        """Go on with a memory, in which every parameter has its own by name."""
        mine = {n: memory[n] for n in self.groups.names if n in memory} if memory else memory
        self.memory, self._device = copied(mine), None

    # -- inside ------------------------------------------------------------------------------

    def _elements(self, place: int, values: Tensor, step: int) -> Elements:
        grad = self.gradients[place] if self.gradients else None
        rates = self._rates
        lr: partial[Rate] | None = None
        if rates is not None:
            lr = partial(lambda i: rates.each("lr")[i], place)
        return Elements(
            values,
            step=step,
            weight=lambda: self._view(whole(self.weights[place].detach())).to(values),
            grad=None if grad is None else (lambda: self._view(whole(grad).to_dense()).to(values)),
            lr=lr,
        )

    def _out_of_sight(self, tensor: Tensor) -> bool:
        return self.strategy.view == "matrix" and tensor.ndim < 2

    def _view(self, tensor: Tensor) -> Tensor:
        """``(elements,)`` or ``(rows, columns)``, in float32 at least."""
        wide = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        return wide.reshape(-1) if self.strategy.view == "flat" else wide.reshape(len(wide), -1)

    def _decision(self, left: Tensor, changed: Tensor) -> Decision:
        norm = self._norm
        limit = torch.full_like(norm, math.nan)
        factor = torch.where(norm > 0, left / norm, 1.0)
        clipped_norm = torch.where(changed, left, norm)
        return Decision(norm, math.nan, limit, factor, clipped_norm, changed, False, None)


def _differs(new: Tensor, old: Tensor) -> Tensor:
    """Whether any element changed, bool scalar. NaN stays NaN: that is no change."""
    return ((new != old) & ~(torch.isnan(new) & torch.isnan(old))).any()


def make(strategy: Strategy, *args: Any, **settings: Any) -> Part:
    """The part of a clipper that puts `strategy` to work; arguments as `Part`."""
    if isinstance(strategy, Transform):
        return TransformPart(strategy, *args, **settings)
    if strategy.side == "sample":
        return SamplePart(strategy, *args, **settings)
    return Part(strategy, *args, **settings)
