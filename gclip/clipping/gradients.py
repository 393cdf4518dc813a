"""Which gradients there are, and each in memory of its own before it is written to.

Gradients that autograd makes have their own memory. Those that somebody assigned need not: one
tensor may be the gradient of two parameters, two may overlap, and an expanded tensor
(``zeros(1).expand(n)``) has many elements at one place. Written to in place, such memory would be
scaled twice, or torch would refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add, attrgetter, gt
from typing import Any

import torch
from torch import Tensor, nn

from gclip.clipping.dtensor import align, local, whole
from gclip.clipping.sparse import coalesce, stored

_bytes = attrgetter("nbytes")


def gradients(params: Sequence[Tensor]) -> list[Tensor | None]:
    """Each parameter's gradient; None where there is none, or the parameter is frozen.

    A frozen parameter (``requires_grad=False``) may still hold the gradient of an earlier step.
    """
    return [p.grad if p.requires_grad else None for p in params]


def stored_elements(grads: Sequence[Tensor | None]) -> list[Tensor]:
    """All the elements that this process stores, to be changed in place."""
    return [local(stored(grad)) for grad in grads if grad is not None]


def nonfinite_names(names: Sequence[str], grads: Sequence[Tensor | None]) -> list[str]:
    """The names of the gradients that are not finite."""
    return [
        name
        for name, grad in zip(names, grads, strict=True)
        if grad is not None and not bool(torch.isfinite(stored(whole(grad))).all())
    ]


class GradientReader:
    """Reads a step's gradients into the form in which they are measured.

    Attributes:
        strided: whether those of the last step are neither sparse nor spread over processes.
        plain: whether none of them is missing, either.
    """

    def __init__(self) -> None:
        self.strided = True
        self.plain = False
        self.aliased = AliasedGradients()

    def read(self, params: Sequence[Tensor], *, sharded: bool) -> list[Tensor | None] | None:
        """One gradient a parameter, sparse ones coalesced; None where there is none at all."""
        if sharded:
            align(params)
        grads = gradients(params)
        present = [grad for grad in grads if grad is not None]
        sparse = [grad for grad in present if grad.is_sparse]
        if sparse:
            coalesce(params)
            grads = gradients(params)
        self.strided = not (sparse or sharded)
        self.plain = self.strided and len(present) == len(grads)
        return grads if present else None


class AliasedGradients:
    """Gives gradients that share memory memory of their own."""

    def __init__(self) -> None:
        self._addresses: list[int] = []  # where they lay when nothing was shared

    def separate(
        self, params: Sequence[Tensor], grads: Sequence[Tensor | None], *, strided: bool
    ) -> bool:
        """Replace the ``.grad`` of those that share memory by copies; whether there were any.

        The first of several that share keeps its memory. Where nothing has moved since the last
        call, one look at each gradient tells.

        Args:
            params: the parameters.
            grads: the gradients of `params`, None where one is not to be looked at.
            strided: whether they are plain tensors, neither sparse nor spread over processes.
        """
        tensors: list[Any] = list(grads)
        if self._addresses and strided and type(tensors[0]) is Tensor:
            try:
                addresses = list(map(Tensor.data_ptr, tensors))
            except TypeError:  # one is None
                addresses = []
            if addresses == self._addresses and all(map(Tensor.is_contiguous, tensors)):
                return False
        return self._separate(params, grads, strided)

    def _separate(
        self, params: Sequence[Tensor], grads: Sequence[Tensor | None], strided: bool
    ) -> bool:
        present = [g for g in grads if g is not None]
        tensors = present if strided else [local(stored(g)) for g in present]
        if not tensors or type(tensors[0]) not in (Tensor, nn.Parameter):
            return False  # no memory to speak of, as under a FakeTensorMode
        addresses = list(map(Tensor.data_ptr, tensors))
        shared: list[int] = []
        if not all(t.is_contiguous() for t in tensors) or _overlap(addresses, tensors):
            shared = _sharing(tensors, addresses)
        weights = set(map(Tensor.data_ptr, map(local, params)))
        if not weights.isdisjoint(addresses):  # the gradient of |w|²/2 is w, but not its memory
            with_weights = {
                i
                for i, (address, t) in enumerate(zip(addresses, tensors, strict=True))
                if address in weights and t.numel()
            }
            shared = [*shared, *(with_weights - set(shared))]
        # Only where all have one are the same addresses the same sizes.
        self._addresses = addresses if len(present) == len(params) and not shared else []
        owners = [p for p, g in zip(params, grads, strict=True) if g is not None]
        copies = [(owners[i], present[i].clone()) for i in shared]
        for param, copy in copies:
            param.grad = copy
        return bool(shared)


def _overlap(addresses: Sequence[int], tensors: Sequence[Tensor]) -> bool:
    """Whether any of these tensors, each without gaps, begins before another ends."""
    starts, ends = sorted(addresses), sorted(map(add, addresses, map(_bytes, tensors)))
    return any(map(gt, ends, starts[1:]))


def _sharing(tensors: Sequence[Tensor], addresses: Sequence[int]) -> list[int]:
    """Which tensors have elements in one place, or in the place of another's."""
    spans = [_span(tensor) for tensor in tensors]
    shared = [i for i, span in enumerate(spans) if span is None]
    end = 0
    for i in sorted(range(len(tensors)), key=addresses.__getitem__):
        span = spans[i]
        if span:
            if addresses[i] < end:
                shared.append(i)
            end = max(end, addresses[i] + span)
    return shared


def _span(tensor: Tensor) -> int | None:
    """How many bytes there are from its first element to its last; None where some may coincide."""
    if not tensor.numel():
        return 0
    reach = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride < reach:
                return None
            reach += (size - 1) * stride
    return reach * tensor.element_size()
