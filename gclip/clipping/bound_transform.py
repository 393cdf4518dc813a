"""A transform at work on some parameters: the part of a clipper that changes elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from gclip.clipping.answers import remembered
from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.dtensor import Gathered, is_sharded, whole
from gclip.clipping.groups import Groups
from gclip.clipping.norms import ALL_FINITE, set_modulus
from gclip.clipping.per_sample.bound_strategy import BoundSampleStrategy
from gclip.clipping.rules import Decision, transformed
from gclip.clipping.state import copied, retyped
from gclip.clipping.units import Axis, rows
from gclip.core.host import on_host
from gclip.core.seen import Elements, Rate
from gclip.core.strategy import Memory, Strategy, Transform


class BoundTransform(BoundStrategy):
    """As `BoundStrategy`: `take`, `measure`, `ask`, `clip`; memory is kept by parameter name."""

    strategy: Transform

    def __init__(self, strategy: Transform, *args: Any, **settings: Any) -> None:
        super().__init__(strategy, *args, **settings)
        self._clamps, self._order = False, 2.0
        self._rows = list(map(rows, self.groups.shapes, self.groups.axes))
        self._changed: list[Tensor | None] = []
        self._types: dict[str, torch.dtype] = {}  # of the elements that memory is made for
        self.gradients: list[Tensor | None] = []  # on the update side: what the update came from

    @staticmethod
    def _group(
        strategy: Strategy, names: list[str], params: list[Tensor], axes: Sequence[Axis] | None
    ) -> Groups:
        return Groups(names, [p.shape for p in params], "tensor", axes)

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
        valid = None if finite is ALL_FINITE else finite
        kept: dict[str, Memory] = dict(self.memory)
        flags = []
        self._changed = []
        for place, (name, grad) in enumerate(zip(self.groups.names, self._grads, strict=True)):
            new: Tensor | None = None
            if grad is not None and grad.numel() and not self._out_of_sight(grad):
                values = self._view(place, grad)
                mine = cast(Transform, self.now(step, values.dtype)) if self._beyond else strategy
                if name not in kept:
                    kept[name] = remembered(mine, torch.zeros_like(values))
                elif self._types.get(name) != values.dtype:
                    kept[name] = retyped(kept[name], values.dtype)
                self._types[name] = values.dtype
                seen = self._elements(place, values, step)
                new, kept[name] = transformed(mine, seen, kept[name], valid)
                if self._keep and valid is not None:
                    new = kept_elements(mine, new, values)
            change = (
                _differs(new, self._view(place, grad))
                if new is not None and grad is not None
                else None
            )
            same = change is not None and on_host(change) and not change
            self._changed.append(None if same else new)
            flags.append(self._norm.new_zeros((), dtype=torch.bool) if change is None else change)
        self.memory = kept
        self.made = self._decision(torch.stack(flags).to(self._norm.device))
        return None

    @property
    def writes(self) -> bool:
        return any(new is not None for new in self._changed)

    def enter_graph(self, recording: bool) -> None:
        """Which tensors change is known only now: another graph for every choice of them."""
        self.clip(recording)

    def clip(self, recording: bool) -> None:
        """Write what changed into the gradients."""
        for place, (grad, new) in enumerate(zip(self._grads, self._changed, strict=True)):
            if grad is not None and new is not None:
                if grad.is_complex() and not new.is_complex():
                    set_modulus(grad, new.reshape(grad.shape))
                    continue
                if grad.dtype.itemsize < new.dtype.itemsize:
                    # What was finite stays so: the largest half-precision number, not inf.
                    most = torch.finfo(grad.dtype).max
                    new = torch.where(new.isfinite(), new.clamp(-most, most), new)
                grad.copy_(self._as_it_was(place, new, grad.shape))
        self._give_back()
        self._changed = [None] * len(self._grads)  # it has been done
        self.total_after = self.made.clipped_norm

    def take_over(self, memory: Any, groups: Sequence[str]) -> None:
        """Go on with a memory, in which every parameter has its own by name."""
        mine = {n: memory[n] for n in self.groups.names if n in memory} if memory else memory
        self.memory, self._device, self._types = copied(mine), None, {}

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
            weight=lambda: self._view(place, whole(self.weights[place].detach())).to(values),
            grad=(
                None
                if grad is None
                else lambda: self._view(place, whole(grad).to_dense()).to(values)
            ),
            lr=lr,
        )

    def _out_of_sight(self, tensor: Tensor) -> bool:
        return self.strategy.view == "matrix" and tensor.ndim < 2

    def _view(self, place: int, tensor: Tensor) -> Tensor:
        """``(elements,)``, of complex ones the moduli, or ``(rows, columns)``; float32 at least."""
        if tensor.is_complex() and self.strategy.view == "flat":
            tensor = tensor.abs()
        wide = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        return wide.reshape(-1) if self.strategy.view == "flat" else self._rows[place].matrix(wide)

    def _as_it_was(self, place: int, values: Tensor, shape: torch.Size) -> Tensor:
        if self.strategy.view == "flat":
            return values.reshape(shape)
        return self._rows[place].from_matrix(values, shape)

    def _retype(self, dtype: torch.dtype) -> None:
        """Each tensor's memory has the dtype of its own elements: see `ask`."""

    def _decision(self, changed: Tensor) -> Decision:
        norm = self._norm
        there = any(new is not None for new in self._changed)
        left = self._l2(self._changed).to(norm.device) if there else norm
        left = torch.where(changed, left, norm)
        limit = torch.full_like(norm, math.nan)
        factor = torch.where(norm > 0, left / norm, 1.0)
        return Decision(norm, math.nan, limit, factor, left, changed, False, None)


def kept_elements(strategy: Transform, new: Tensor, old: Tensor) -> Tensor:
    """Of a step that is not finite, what can be used, under ``nonfinite="keep"``.

    Element by element, where nothing else was looked at; else a tensor that is not finite stays as
    it is.
    """
    if strategy.scope == "element":
        return torch.where(torch.isnan(new), old, new)
    finite = torch.isfinite(old).all(dim=-1, keepdim=True)
    if strategy.view == "matrix":
        finite = finite.all(dim=-2, keepdim=True)
    return torch.where(finite, new, old)


def _differs(new: Tensor, old: Tensor) -> Tensor:
    """Whether any element changed, bool scalar. NaN stays NaN: that is no change."""
    return ((new != old) & ~(torch.isnan(new) & torch.isnan(old))).any()


def make(strategy: Strategy, *args: Any, **settings: Any) -> BoundStrategy:
    """The part of a clipper that puts `strategy` to work; arguments as `BoundStrategy`."""
    if isinstance(strategy, Transform):
        return BoundTransform(strategy, *args, **settings)
    if strategy.side == "sample":
        return BoundSampleStrategy(strategy, *args, **settings)
    return BoundStrategy(strategy, *args, **settings)
