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

from torch import Tensor, nn

from gclip.clipping.dtensor import local
from gclip.clipping.sparse import stored

_bytes = attrgetter("nbytes")


def gradients(params: Sequence[Tensor]) -> list[Tensor | None]:
    """Each parameter's gradient; None where there is none, or the parameter is frozen.

    A frozen parameter (``requires_grad=False``) may still hold the gradient of an earlier step.
    """
    return [p.grad if p.requires_grad else None for p in params]


class Apart:
    """Gives gradients that share memory memory of their own."""

    def __init__(self) -> None:
        self._known: list[int] = []  # where they lay when nothing was shared

    def settle(
        self, params: Sequence[Tensor], grads: Sequence[Tensor | None], *, strided: bool
    ) -> bool:
        """Replace the ``.grad`` of those that share memory by copies; whether there were any.

        The first of several that share keeps its memory. Where nothing has moved since the last
        call, one look at each gradient tells.

        Args:
            grads: the gradients of `params`, None where one is not to be looked at.
            strided: whether they are plain tensors, neither sparse nor spread over processes.
        """
        given: list[Any] = list(grads)
        if self._known and strided and type(given[0]) is Tensor:
            try:
                places = list(map(Tensor.data_ptr, given))
            except TypeError:  # one is None
                places = []
            if places == self._known and all(map(Tensor.is_contiguous, given)):
                return False
        return self._look(params, grads, strided)

    def _look(
        self, params: Sequence[Tensor], grads: Sequence[Tensor | None], strided: bool
    ) -> bool:
        found = [g for g in grads if g is not None]
        tensors = found if strided else [local(stored(g)) for g in found]
        if not tensors or type(tensors[0]) not in (Tensor, nn.Parameter):
            return False  # no memory to speak of, as under a FakeTensorMode
        places = list(map(Tensor.data_ptr, tensors))
        shared: list[int] = []
        if not all(t.is_contiguous() for t in tensors) or _overlap(places, tensors):
            shared = _sharing(tensors, places)
        weights = set(map(Tensor.data_ptr, map(local, params)))
        if not weights.isdisjoint(places):  # the gradient of |w|²/2 is w, but not its memory
            mine = {
                i
                for i, (place, t) in enumerate(zip(places, tensors, strict=False))
                if place in weights and t.numel()
            }
            shared = [*shared, *(mine - set(shared))]
        # Only where all have one are the same places the same sizes.
        self._known = places if len(found) == len(params) and not shared else []
        owners = [p for p, g in zip(params, grads, strict=True) if g is not None]
        copies = [(owners[i], found[i].clone()) for i in shared]
        for param, copy in copies:
            param.grad = copy
        return bool(shared)


def _overlap(places: Sequence[int], tensors: Sequence[Tensor]) -> bool:
    """Whether any of these tensors, each without gaps, begins before another ends."""
    starts, ends = sorted(places), sorted(map(add, places, map(_bytes, tensors)))
    return any(map(gt, ends, starts[1:]))


def _sharing(tensors: Sequence[Tensor], places: Sequence[int]) -> list[int]:
    """Which tensors have elements in one place, or in the place of another's."""
    spans = [_span(tensor) for tensor in tensors]
    shared = [i for i, span in enumerate(spans) if span is None]
    end = 0
    for i in sorted(range(len(tensors)), key=places.__getitem__):
        span = spans[i]
        if span:
            if places[i] < end:
                shared.append(i)
            end = max(end, places[i] + span)
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
