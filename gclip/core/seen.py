"""What a strategy may look at in one step, and what it may answer: norms in, limits out.

Shapes: ``(…, groups)`` throughout. The last dimension counts the groups of the scope (one for
``global``), any dimensions before it count runs trained side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gclip.core.scaling import divisor
from gclip.errors import UsageError


class Band(NamedTuple):
    """Limits from both sides: norms (or, when clamping, elements) stay within ``low..high``."""

    low: Tensor | float
    high: Tensor | float


Limit: TypeAlias = Tensor | float | Band
Rate: TypeAlias = Tensor | float
"""A learning rate or weight decay: one for all groups, or one each."""


class Seen:
    """What a strategy may look at in one step. Everything not asked for is never measured.

    (Plain properties that keep what they found: compilers cannot trace through the lock of
    ``functools.cached_property``.)

    Attributes:
        step: how many steps this clipper has made before this one, counted on the host.
        valid: ``None`` when every group's norm may enter memory, else a bool tensor
            ``(…, groups)``: False for groups without a gradient and for steps whose gradients
            are not finite. Only memory helpers need it; plain entries are guarded for you.
        per_example: True on the side ``sample``, where `norm` is ``(examples, groups)`` and memory
            ``(groups,)``: what enters memory is reduced by `example_mean`.
        total_steps: how many steps there will be, where the clipper was told; else None.
    """

    def __init__(
        self,
        norm: Tensor | Callable[[], Tensor],
        *,
        step: int = 0,
        weight_norm: Tensor | Callable[[], Tensor] | None = None,
        size: Tensor | Callable[[], Tensor] | None = None,
        lr: Rate | Callable[[], Rate] | None = None,
        weight_decay: Rate | Callable[[], Rate] | None = None,
        valid: Tensor | None = None,
        total_steps: int | None = None,
        per_example: bool = False,
    ) -> None:
        self._norm = norm
        self._weight_norm = weight_norm
        self._size = size
        self._lr = lr
        self._weight_decay = weight_decay
        self.step = step
        self.valid = valid
        self.total_steps = total_steps
        self.per_example = per_example

    def example_mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the step's examples, ``(examples, groups)`` to ``(groups,)``.

        For `Strategy.learn` on the side ``sample``; elsewhere `values` as they are. Examples whose
        gradient is not finite do not count.
        """
        if not self.per_example:
            return values
        if self.valid is None:
            return values.mean(dim=0)
        total = torch.where(self.valid, values, 0.0).sum(dim=0)
        return total / self.valid.sum(dim=0).clamp(min=1)

    @property
    def norm(self) -> Tensor:
        """Each group's gradient norm, ``(…, groups)``: float32, of float64 gradients float64."""
        norm = self._norm
        if not isinstance(norm, Tensor):
            norm = self._norm = norm()
        return norm

    @property
    def weight_norm(self) -> Tensor:
        """Each group's parameter norm, like `norm`, ``(…, groups)``; measured when first read."""
        self._weight_norm = value = _given(self._weight_norm, "weight_norm")
        return value

    @property
    def size(self) -> Tensor:
        """How many elements each group has, of the dtype of `norm`, ``(groups,)``."""
        self._size = value = _given(self._size, "size")
        return value

    @property
    def lr(self) -> Rate:
        """The optimizer's learning rate: a number, or ``(…, groups)`` where groups differ.

        Known under `gclip.attach` and with ``Clipper(…, optimizer=…)``, else `UsageError`.
        """
        self._lr = value = _hyper(self._lr, "learning rate")
        return value

    @property
    def weight_decay(self) -> Rate:
        """The optimizer's weight decay, 0 where it has none; known where `lr` is."""
        self._weight_decay = value = _hyper(self._weight_decay, "weight decay")
        return value

    @property
    def global_norm(self) -> Tensor:
        """The L2 norm over all groups, of the dtype of `norm`, ``(…, 1)``."""
        # Relative to the largest: its square may be more than the dtype holds.
        top = self.norm.amax(dim=-1, keepdim=True)
        safe = divisor(top)
        norm: Tensor = torch.linalg.vector_norm(self.norm / safe, dim=-1, keepdim=True)
        return safe * norm


class Elements:
    """What a `Transform` may look at in one step: one tensor, its elements in the last dimension.

    Attributes:
        values: the gradient (or the update, on that side), ``(…, elements)``, or
            ``(…, rows, columns)`` where the class's `view` is ``matrix``. float32 at least. Of
            complex elements the moduli, whose phases are kept; a matrix of them is complex.
        step: how many steps this clipper has made before this one.
    """

    def __init__(
        self,
        values: Tensor,
        *,
        step: int = 0,
        weight: Tensor | Callable[[], Tensor] | None = None,
        grad: Tensor | Callable[[], Tensor] | None = None,
        lr: Rate | Callable[[], Rate] | None = None,
    ) -> None:
        self.values, self.step = values, step
        self._weight, self._grad, self._lr = weight, grad, lr

    @property
    def weight(self) -> Tensor:
        """The parameter (before the optimizer's step), of the same shape as `values`."""
        self._weight = value = _given(self._weight, "weight")
        return value

    @property
    def grad(self) -> Tensor:
        """The gradient, of the same shape as `values`; on the gradient side they are the same."""
        self._grad = value = self.values if self._grad is None else _given(self._grad, "grad")
        return value

    @property
    def lr(self) -> Rate:
        """The optimizer's learning rate for this tensor."""
        self._lr = value = _hyper(self._lr, "learning rate")
        return value


def _given(value: Tensor | Callable[[], Tensor] | None, name: str) -> Tensor:
    if value is None:
        raise UsageError(f"{name} was read, but this call to the strategy did not provide it")
    return value() if callable(value) else value


def _hyper(value: Rate | Callable[[], Rate] | None, name: str) -> Rate:
    if value is None:
        raise UsageError(
            f"the strategy needs the optimizer's {name}: use gclip.attach(optimizer, …), or "
            "Clipper(model, …, optimizer=optimizer)"
        )
    return value() if callable(value) else value
