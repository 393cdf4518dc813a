"""Runs whose strategies change elements: one call for each stack, for all of the runs at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from gclip.clipping.answers import remembered
from gclip.clipping.bound_transform import kept_elements
from gclip.clipping.norms import ALL_FINITE, exact_norm, fitting, lost, set_modulus
from gclip.clipping.rules import Decision, transformed
from gclip.clipping.state import retyped
from gclip.clipping.units import Units, rows
from gclip.core.host import on_host
from gclip.core.seen import Elements, Rate
from gclip.core.strategy import Memory, Strategy, Transform
from gclip.training.fleet.stacked_norms import StackedNorms
from gclip.training.fleet.strategy_batch import StepInputs, StrategyBatch
from gclip.training.fleet.vectorized_strategy import VectorizedStrategy


class TransformBatch(StrategyBatch):
    """As `StrategyBatch`. Memory is kept for each parameter's name."""

    _new: list[tuple[int, Tensor]]

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._types: dict[str, torch.dtype] = {}  # of the elements that memory is made for

    def ask(self, now: StepInputs, measured: StackedNorms) -> Tensor | None:
        """Compute the new values and the memory; a transform never skips a step."""
        if self.norm.dtype != self.dtype:
            self._follow(now)
        kept: dict[str, Memory] = dict(self.memory or {})
        norm, self._new = self.norm, []
        left, flags = list(norm.unbind(1)), []
        valid = None if now.finite is ALL_FINITE else self.mine(now.finite)
        for column, place in enumerate(self.view.places):
            grad, name = now.grads[place], self.view.groups.names[column]
            change: Tensor | None = None
            view = cast(Transform, self.merged.strategies[0]).view
            if grad is not None and grad.numel() and not _out_of_sight(view, grad):
                values = self._seen(view, place, grad)
                strategy = cast(Transform, self.merged.at(now.step, values.device, values.dtype))
                if name not in kept:
                    kept[name] = remembered(strategy, torch.zeros_like(values))
                elif self._types.get(name) != values.dtype:
                    kept[name] = retyped(kept[name], values.dtype)
                self._types[name] = values.dtype
                elements = self._elements(strategy, now, place, values)
                fits = None if valid is None else self._shaped(valid, values)
                new, kept[name] = transformed(strategy, elements, kept[name], fits)
                if now.keep and valid is not None:
                    new = kept_elements(strategy, new, values)
                if self.merged.alone:
                    new, values = new.unsqueeze(0), values.unsqueeze(0)
                change = _differs(new, values)
                if not on_host(change) or bool(change.any()):
                    after = _l2(new.flatten(1))
                    left[column] = torch.where(change, after, left[column])
                    self._new.append((place, new))
            flags.append(
                torch.zeros_like(norm[:, 0], dtype=torch.bool) if change is None else change
            )
        self.memory = kept
        self._decide(torch.stack(left, dim=1), torch.stack(flags, dim=1))
        return None

    def write(self, now: StepInputs) -> None:
        """Put what changed into the gradients."""
        for place, new in self._new:
            grad = cast(Tensor, now.grads[place])
            if grad.is_complex() and not new.is_complex():
                mine = self.mine(grad).clone()
                set_modulus(mine, new.reshape(mine.shape))
                self.put(grad, mine)
                continue
            if grad.dtype.itemsize < new.dtype.itemsize:
                # What was finite stays so: the largest half-precision number, not inf.
                most = torch.finfo(grad.dtype).max
                new = torch.where(new.isfinite(), new.clamp(-most, most), new)
            shape = (len(self.rows), *grad.shape[1:])
            matrix = cast(Transform, self.merged.strategies[0]).view == "matrix"
            self.put(
                grad,
                self._rows(place).from_matrix(new, shape, 1) if matrix else new.reshape(shape),
            )
        self._new = []

    # -- inside ------------------------------------------------------------------------------

    def _decide(self, left: Tensor, changed: Tensor) -> None:
        norm = self.norm
        limit = torch.full_like(norm, math.nan)
        factor = torch.where(norm > 0, left / norm, 1.0)
        self.after = torch.where(changed, left, norm)
        self.made = Decision(norm, math.nan, limit, factor, self.after, changed, True, None)

    def _retyped(self, memory: Any, dtype: torch.dtype) -> Any:
        return memory  # each tensor's has the dtype of its own elements: see `ask`

    def _rows(self, place: int) -> Units:
        layout = self.view.layout
        return rows(layout.shapes[place], layout.axes[place])

    def _seen(self, view: str, place: int, stack: Tensor) -> Tensor:
        """These rows as ``(rows, elements)`` or ``(rows, rows of a matrix, columns)``."""
        mine = self.mine(stack)
        if mine.is_complex() and view == "flat":
            mine = mine.abs()
        wide = mine.float() if mine.dtype in (torch.float16, torch.bfloat16) else mine
        wide = wide.reshape(len(mine), -1) if view == "flat" else self._rows(place).matrix(wide, 1)
        return self._lead(wide)

    def _elements(
        self, strategy: Transform, now: StepInputs, place: int, values: Tensor
    ) -> Elements:
        source = None if now.sources is None else now.sources[place]
        weight = cast(Tensor, now.weights.tensors[place])
        lr: Callable[[], Rate] | None = None
        if now.rates.known("lr"):

            def lr() -> Rate:
                rate = now.rates.single("lr", place, values.device, values.dtype)
                if isinstance(rate, Tensor) and rate.ndim == 2:
                    return self._shaped(self.mine(rate), values)
                return rate

        return Elements(
            values,
            step=now.step,
            weight=lambda: self._seen(strategy.view, place, weight.detach()).to(values),
            grad=None
            if source is None
            else (lambda: self._seen(strategy.view, place, source).to(values)),
            lr=lr,
        )

    def _shaped(self, column: Tensor, values: Tensor) -> Tensor:
        """``(rows, 1)`` with as many dimensions as `values`."""
        if self.merged.alone:
            return column.reshape(())
        return column.view(len(column), *[1] * (values.ndim - 1))


def make_batch(merged: VectorizedStrategy, *args: Any, **settings: Any) -> StrategyBatch:
    """The batch that puts `merged` to work; arguments as `StrategyBatch`."""
    strategy: Strategy = merged.strategies[0]
    made = TransformBatch if isinstance(strategy, Transform) else StrategyBatch
    return made(merged, *args, **settings)


def _out_of_sight(view: str, stack: Tensor) -> bool:
    return view == "matrix" and stack.ndim < 3


def _l2(rows: Tensor) -> Tensor:
    """The L2 norm of each row, ``(rows,)``."""
    norm: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return fitting(exact_norm(rows, 2.0, (1,)), norm.dtype) if lost(norm, 2.0) else norm


def _differs(new: Tensor, old: Tensor) -> Tensor:
    """Which runs have an element that changed, bool ``(rows,)``. NaN stays NaN: no change."""
    changed = (new != old) & ~(torch.isnan(new) & torch.isnan(old))
    return changed.flatten(1).any(dim=1)
