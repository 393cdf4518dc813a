"""Runs whose strategies change elements: one call for each stack, for all of the runs at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from gclip.clipping.answers import remembered
from gclip.clipping.bound_transform import (
    changed_elements,
    keep_finite,
    leave_nonfinite_elements,
)
from gclip.clipping.float64_norms import recheck
from gclip.clipping.norms import ALL_FINITE, set_modulus
from gclip.clipping.rules import Decision, transformed
from gclip.clipping.state import retyped
from gclip.clipping.units import Units, rows
from gclip.core.host import on_host
from gclip.core.seen import Elements, Rate
from gclip.core.strategy import Memory, Strategy, Transform
from gclip.training.fleet.strategy_batch import StepInputs, StrategyBatch, read_dtype
from gclip.training.fleet.vectorized_strategy import VectorizedStrategy


class TransformBatch(StrategyBatch):
    """As `StrategyBatch`. Memory is kept for each parameter's name."""

    _memory_by_group = False  # each tensor's has the dtype of its elements
    _changed: list[tuple[int, Tensor]]

    def __init__(self, strategy: VectorizedStrategy, *args: Any, **settings: Any) -> None:
        super().__init__(strategy, *args, **settings)
        self._matrix = cast(Transform, strategy.strategies[0]).view == "matrix"
        self._dtypes: dict[str, torch.dtype] = {}  # of the elements that memory is made for

    def state_dict(self) -> dict[str, Any]:
        """What it remembers of all its runs, as a copy."""
        return {
            **super().state_dict(),
            "dtypes": {name: str(dtype) for name, dtype in self._dtypes.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from where `state_dict` was taken, on a batch of the same runs."""
        super().load_state_dict(state, device)
        read = ((name, read_dtype(text)) for name, text in state["dtypes"].items())
        self._dtypes = {name: dtype for name, dtype in read if dtype is not None}

    def decide(self, inputs: StepInputs) -> Tensor | None:
        """Compute the new values and the memory; a transform never skips a step."""
        if self.norm.dtype != self.dtype:
            self._match_dtype(inputs)
        memory: dict[str, Memory] = dict(self.memory or {})
        norm, self._changed = self.norm, []
        norms_after, changes = list(norm.unbind(1)), []
        valid = None if inputs.finite is ALL_FINITE else self.select(inputs.finite)
        for column, index in enumerate(self.groups.indices):
            grad, name = inputs.grads[index], self.groups.single_run.names[column]
            change: Tensor | None = None
            if grad is not None and grad.numel() and not self._ignores(grad):
                values = self._view(index, grad)
                now = self.strategy.at(inputs.step, values.device, values.dtype)
                strategy = cast(Transform, now)
                if name not in memory:
                    memory[name] = remembered(strategy, torch.zeros_like(values))
                elif self._dtypes.get(name) != values.dtype:
                    memory[name] = retyped(memory[name], values.dtype)
                self._dtypes[name] = values.dtype
                elements = self._elements(inputs, index, values)
                row_valid = None if valid is None else self._expand_dims(valid, values)
                new, memory[name] = transformed(strategy, elements, memory[name], row_valid)
                if inputs.keep_nonfinite and valid is not None:
                    new = leave_nonfinite_elements(strategy, new, values)
                if self.strategy.unbatched:
                    new, values = new.unsqueeze(0), values.unsqueeze(0)
                change = changed_elements(new, values).flatten(1).any(dim=1)
                if not on_host(change) or bool(change.any()):
                    after = _l2(new.flatten(1))
                    norms_after[column] = torch.where(change, after, norms_after[column])
                    self._changed.append((index, new))
            changes.append(
                torch.zeros_like(norm[:, 0], dtype=torch.bool) if change is None else change
            )
        self.memory = memory
        self._set_decision(torch.stack(norms_after, dim=1), torch.stack(changes, dim=1))
        return None

    def write_elements(self, inputs: StepInputs) -> None:
        """Put what changed into the gradients."""
        for index, new in self._changed:
            grad = cast(Tensor, inputs.grads[index])
            if grad.is_complex() and not new.is_complex():
                selected = self.select(grad).clone()
                set_modulus(selected, new.reshape(selected.shape))
                self.scatter(grad, selected)
                continue
            new = keep_finite(new, grad.dtype)
            shape = torch.Size((len(self.rows), *grad.shape[1:]))
            self.scatter(grad, self._unview(index, new, shape))
        self._changed = []

    # -- inside ------------------------------------------------------------------------------

    def _set_decision(self, norms_after: Tensor, changed: Tensor) -> None:
        norm = self.norm
        limit = torch.full_like(norm, math.nan)
        factor = torch.where(norm > 0, norms_after / norm, 1.0)
        self.after = torch.where(changed, norms_after, norm)
        self.decision = Decision(norm, math.nan, limit, factor, self.after, changed, True, None)

    def _rows(self, index: int) -> Units:
        parameters = self.groups.parameters
        return rows(parameters.shapes[index], parameters.axes[index])

    def _ignores(self, stack: Tensor) -> bool:
        return self._matrix and stack.ndim < 3

    def _view(self, index: int, stack: Tensor) -> Tensor:
        """These rows as ``(rows, elements)`` or ``(rows, rows of a matrix, columns)``."""
        selected = self.select(stack)
        if selected.is_complex() and not self._matrix:
            selected = selected.abs()
        half = selected.dtype in (torch.float16, torch.bfloat16)
        values = selected.float() if half else selected
        if self._matrix:
            return self._drop_run_dim(self._rows(index).matrix(values, 1))
        return self._drop_run_dim(values.reshape(len(selected), -1))

    def _unview(self, index: int, values: Tensor, shape: torch.Size) -> Tensor:
        """Back from `_view`, with the dimension of the runs, to the stack's shape."""
        return (
            self._rows(index).from_matrix(values, shape, 1)
            if self._matrix
            else values.reshape(shape)
        )

    def _elements(self, inputs: StepInputs, index: int, values: Tensor) -> Elements:
        source = None if inputs.sources is None else inputs.sources[index]
        weight = cast(Tensor, inputs.weights.tensors[index])
        lr: Callable[[], Rate] | None = None
        if inputs.hyperparameters.known("lr"):

            def lr() -> Rate:
                rate = inputs.hyperparameters.of_parameter("lr", index, values.device, values.dtype)
                if isinstance(rate, Tensor) and rate.ndim == 2:
                    return self._expand_dims(self.select(rate), values)
                return rate

        return Elements(
            values,
            step=inputs.step,
            weight=lambda: self._view(index, weight.detach()).to(values),
            grad=None if source is None else (lambda: self._view(index, source).to(values)),
            lr=lr,
        )

    def _expand_dims(self, column: Tensor, values: Tensor) -> Tensor:
        """``(rows, 1)`` with as many dimensions as `values`."""
        if self.strategy.unbatched:
            return column.reshape(())
        return column.view(len(column), *[1] * (values.ndim - 1))


def make_batch(strategy: VectorizedStrategy, *args: Any, **settings: Any) -> StrategyBatch:
    """The batch that puts `strategy` to work; arguments as `StrategyBatch`."""
    first: Strategy = strategy.strategies[0]
    batch_type = TransformBatch if isinstance(first, Transform) else StrategyBatch
    return batch_type(strategy, *args, **settings)


def _l2(rows: Tensor) -> Tensor:
    """The L2 norm of each row, ``(rows,)``."""
    norm: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return recheck(norm, rows, 2.0)
