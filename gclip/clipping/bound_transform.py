"""A transform at work on some parameters: it changes elements."""

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
from gclip.clipping.rules import Decision, transformed
from gclip.clipping.state import copied, retyped
from gclip.clipping.units import Axis, rows
from gclip.core.host import on_host
from gclip.core.pieces import PIECE
from gclip.core.seen import Elements, Rate
from gclip.core.strategy import Memory, Transform


class BoundTransform(BoundStrategy):
    """As `BoundStrategy`: `take`, `measure`, `ask`, `clip`; memory is kept by parameter name."""

    strategy: Transform
    writes_at_once = True

    def __init__(self, strategy: Transform, *args: Any, **settings: Any) -> None:
        super().__init__(strategy, *args, **settings)
        self._order = 2.0
        self._rows = list(map(rows, self.groups.shapes, self.groups.axes))
        self._new: list[Tensor | None] = []  # the values of the tensors that change
        self._dtypes: dict[str, torch.dtype] = {}  # of the elements that memory is made for

    @property
    def writes(self) -> bool:
        """Whether `clip` may write to gradients."""
        return any(new is not None for new in self._new)

    def ask(self, step: int, finite: Tensor) -> Tensor | None:
        """Compute the new values and the memory; a transform never skips a step.

        Of a step that is known to be finite, each tensor is written as soon as it is computed, so
        that no copy of all gradients is needed.
        """
        strategy = cast(Transform, self.at_step(step))
        valid = None if finite is ALL_FINITE else finite
        memory: dict[str, Memory] = dict(self.memory or {})
        flags = []
        self._new = []
        for index, (name, grad) in enumerate(zip(self.groups.names, self._grads, strict=True)):
            new: Tensor | None = None
            changed: Tensor | None = None
            if grad is not None and grad.numel() and not self._ignores(grad):
                values = self._view(index, grad)
                own = strategy
                if self._exceeds:
                    own = cast(Transform, self.at_step(step, values.dtype))
                if name not in memory:
                    memory[name] = remembered(own, torch.zeros_like(values))
                elif self._dtypes.get(name) != values.dtype:
                    memory[name] = retyped(memory[name], values.dtype)
                self._dtypes[name] = values.dtype
                seen = self._elements(index, values, step)
                new, memory[name] = transformed(own, seen, memory[name], valid)
                if self._keep_nonfinite and valid is not None:
                    new = leave_nonfinite_elements(own, new, values)
                changed = any_changed(new, values, finite=valid is None)
                if on_host(changed) and not changed:
                    new = None
                elif valid is None and new.dtype == grad.dtype:
                    new = grad.copy_(self._unview(index, new, grad.shape))
            self._new.append(new)
            if changed is None:
                changed = self._norm.new_zeros((), dtype=torch.bool)
            flags.append(changed)
        self.memory = memory
        self.decision = self._decide(torch.stack(flags).to(self._norm.device))
        return None

    def enter_graph(self) -> None:
        """Which tensors change is known only now: another graph for every choice of them."""
        self.clip()

    def clip(self) -> None:
        """Write what changed into the gradients."""
        for index, (grad, new) in enumerate(zip(self._grads, self._new, strict=True)):
            if grad is not None and new is not None and new is not grad:
                if grad.is_complex() and not new.is_complex():
                    set_modulus(grad, new.reshape(grad.shape))
                    continue
                grad.copy_(self._unview(index, keep_finite(new, grad.dtype), grad.shape))
        self._give_back()
        self._new = [None] * len(self._grads)  # it has been done
        self.total_after = self.decision.clipped_norm

    def load_memory(self, memory: Any, _groups: Sequence[str], /) -> None:
        """Go on with a memory, in which every parameter has its own by name."""
        own = {n: memory[n] for n in self.groups.names if n in memory} if memory else memory
        self.memory, self._device, self._dtypes = copied(own), None, {}

    # -- inside ------------------------------------------------------------------------------

    def _group(self, names: list[str], params: list[Tensor], axes: Sequence[Axis] | None) -> Groups:
        return Groups(names, [p.shape for p in params], "tensor", axes)

    def _take_shards(self, grads: list[Tensor | None]) -> None:
        for index, grad in enumerate(grads):
            if is_sharded(grad):
                full = Gathered(grad)
                grads[index] = full.values
                self._lent.append(full)

    @property
    def _needs_dense(self) -> bool:
        return True

    def _elements(self, index: int, values: Tensor, step: int) -> Elements:
        grad = self._sources[index] if self._sources else None
        known = self._hyperparameters
        lr: partial[Rate] | None = None
        if known is not None:
            lr = partial(lambda i: known.each("lr")[i], index)
        return Elements(
            values,
            step=step,
            weight=lambda: self._view(index, whole(self.weights[index].detach())).to(values),
            grad=(
                None
                if grad is None
                else lambda: self._view(index, whole(grad).to_dense()).to(values)
            ),
            lr=lr,
        )

    def _ignores(self, tensor: Tensor) -> bool:
        return self.strategy.view == "matrix" and tensor.ndim < 2

    def _view(self, index: int, tensor: Tensor) -> Tensor:
        """``(elements,)``, of complex ones the moduli, or ``(rows, columns)``; float32 at least."""
        flat = self.strategy.view == "flat"
        if tensor.is_complex() and flat:
            tensor = tensor.abs()
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        return tensor.reshape(-1) if flat else self._rows[index].matrix(tensor)

    def _unview(self, index: int, values: Tensor, shape: torch.Size) -> Tensor:
        """Back from `_view` to the parameter's shape."""
        if self.strategy.view == "flat":
            return values.reshape(shape)
        return self._rows[index].from_matrix(values, shape)

    def _retype(self, dtype: torch.dtype) -> None:
        """Each tensor's memory has the dtype of its own elements: see `ask`."""

    def _decide(self, changed: Tensor) -> Decision:
        norm = self._norm
        after = norm
        if any(new is not None for new in self._new):
            after = torch.where(changed, self._l2(self._new).to(norm.device), norm)
        limit = torch.full_like(norm, math.nan)
        factor = torch.where(norm > 0, after / norm, 1.0)
        return Decision(norm, math.nan, limit, factor, after, changed, False, None)


def leave_nonfinite_elements(strategy: Transform, new: Tensor, old: Tensor) -> Tensor:
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


def changed_elements(new: Tensor, old: Tensor) -> Tensor:
    """Which elements changed, bool. NaN stays NaN: that is no change."""
    return (new != old) & ~(torch.isnan(new) & torch.isnan(old))


def any_changed(new: Tensor, old: Tensor, *, finite: bool) -> Tensor:
    """Whether any element changed, bool ``()``; `finite` where the host knows that all old are."""
    if not finite or not on_host(new):
        return changed_elements(new, old).any()
    if new is old or not new.numel():
        return torch.zeros((), dtype=torch.bool, device="cpu")
    changed = any(map(_differ, *(torch.split(t.reshape(-1), PIECE) for t in (new, old))))
    return torch.tensor(changed, device="cpu")


def _differ(new: Tensor, old: Tensor) -> bool:
    """Whether any of these elements, of which no old one is NaN or inf, are different."""
    # Differences and their ends are much faster than comparisons; a new NaN is one, too.
    gap = new - old
    low, high = torch.aminmax(torch.view_as_real(gap) if gap.is_complex() else gap)
    return not low.item() == high.item() == 0


def keep_finite(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values for a tensor of `dtype`: what it cannot hold becomes its largest number, not inf."""
    if dtype.itemsize >= values.dtype.itemsize:
        return values
    most = torch.finfo(dtype).max
    return torch.where(values.isfinite(), values.clamp(-most, most), values)
