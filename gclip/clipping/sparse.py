"""Sparse gradients (of ``nn.Embedding(sparse=True)``): their rows, as the clipper sees them.

Rows that occur several times count as their sum, so the clipper puts every sparse gradient into
its coalesced form first: clipping before that would treat the summands one by one.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def coalesce(params: Iterable[Tensor]) -> None:
    """Give every parameter with a sparse gradient that same gradient with each row once."""
    for param in params:
        grad = param.grad
        if grad is not None and grad.is_sparse and not grad.is_coalesced():
            param.grad = grad.coalesce()


def stored(grad: Tensor) -> Tensor:
    """The elements that a gradient stores: itself, or a sparse one's rows, ``(rows, *rest)``."""
    return grad._values() if grad.is_sparse else grad


class Sparse:
    """One coalesced sparse gradient.

    Attributes:
        values: its rows, sharing memory with the gradient, ``(rows, *rest)``.
    """

    def __init__(self, grad: Tensor) -> None:
        self._grad = grad
        self.values = grad._values()
        self._dense: Tensor | None = None

    def densify(self) -> Tensor:
        """The gradient with its zero rows; `give_back` returns to it what was changed there."""
        self._dense = self._grad.to_dense()
        return self._dense

    def give_back(self) -> None:
        """Copy the rows of the dense form, if one was made, into the gradient."""
        if self._dense is not None:
            self.values.copy_(self._dense[tuple(self._grad._indices())])
