"""A clamp at one number on a CPU: measured, cut and measured again in one pass over the memory.

Small tensors are copied into one, of which a few calls find each one's largest element and both
norms; a large one is walked through in pieces that a cache holds, so that what is measured first,
cut, and measured again comes from memory once. Nothing is written where nothing is beyond the
limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gclip.clipping.float64_norms import smallest_in_range
from gclip.core.host import on_host

PIECE = 1 << 18
"""Elements of a large tensor that are worked on at a time."""

SMALL = 1 << 14
"""Elements up to which a tensor is small: a call takes longer to begin than to read them."""
ALL_SMALL = 1 << 17
"""Elements in all, up to which every tensor is."""
FEW = 3
"""Fewer small tensors than that are not worth a copy."""

_FLOAT32 = torch.float32
_LEAST = smallest_in_range(_FLOAT32, 2.0) ** 2
_MOST = float(torch.finfo(_FLOAT32).max)
"""Limits at which the squares of what is cut neither overflow nor vanish."""


class Clamped(NamedTuple):
    """What a clamp found and did.

    Attributes:
        largest: of each tensor the largest absolute element before, ``(tensors,)``; NaN where one
            is.
        over: bool ``(tensors,)``: which had an element beyond the limit, or a NaN, and were cut.
        before: the L2 norm of all before, ``(1,)``: float32, float64 where float32 does not hold
            it.
        after: the same, when they had been cut.
    """

    largest: Tensor
    over: Tensor
    before: Tensor
    after: Tensor


def is_small(sizes: Sequence[int]) -> list[bool]:
    """Which tensors of these sizes are better copied together than worked on one by one."""
    most = ALL_SMALL if sum(sizes) <= ALL_SMALL else SMALL
    return [size <= most for size in sizes]


def is_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether all are float32 on a CPU, without gaps, and a look at their values is free."""
    kind, float32 = Tensor, _FLOAT32
    return on_host(tensors[0]) and not [
        t
        for t in tensors
        if type(t) is not kind or t.dtype is not float32 or not t.is_cpu or not t.is_contiguous()
    ]


class ClampPass:
    """Clamps tensors of these shapes, none of them empty."""

    def __init__(self, shapes: Sequence[torch.Size]) -> None:
        sizes = [shape.numel() for shape in shapes]
        small = is_small(sizes)
        few = sum(small) < FEW
        self._large = [i for i, own in enumerate(small) if few or not own]
        self._small: _SmallTensors | None = None
        if not few:
            self._small = _SmallTensors([i for i, own in enumerate(small) if own], shapes)
        self._count = len(sizes)

    def clamp(self, tensors: list[Tensor], limit: float) -> Clamped:
        """Cut every element to ``-limit..limit``, in place; NaN stays NaN.

        Args:
            tensors: as `is_plain` says.
            limit: at least 0, and finite.
        """
        largest, before, after = np.empty(self._count, np.float32), 0.0, 0.0
        bound = np.float32(limit)
        if self._small is not None:
            before, after = self._small.clamp(tensors, limit, largest, bound)
        for i in self._large:
            largest[i], own_before, own_after = _clamp_large(tensors[i], limit, bound)
            before += own_before
            after += own_after
        root = _root(before)
        return Clamped(
            torch.from_numpy(largest),
            torch.from_numpy(_beyond(largest, bound)),
            root,
            root if after == before else _root(after),
        )


class _SmallTensors:
    """Those of the `places` among tensors of these `shapes`, and memory for a copy of them."""

    def __init__(self, places: list[int], shapes: Sequence[torch.Size]) -> None:
        own = [shapes[i] for i in places]
        sizes = [shape.numel() for shape in own]
        self._places, self._all = places, len(places) == len(shapes)
        self._flat = torch.empty(sum(sizes), dtype=_FLOAT32, device="cpu")
        self._values = self._flat.numpy()
        pieces = torch.split(self._flat, sizes)
        self._views = [piece.view(shape) for piece, shape in zip(pieces, own, strict=True)]
        self._starts = np.cumsum([0, *sizes[:-1]], dtype=np.intp)

    def clamp(
        self, tensors: list[Tensor], limit: float, largest: Any, bound: Any
    ) -> tuple[float, float]:
        """Both sums of squares; each tensor's largest element goes into `largest`."""
        flat, values, starts = self._flat, self._values, self._starts
        every = self._all
        own = tensors if every else [tensors[i] for i in self._places]
        torch._foreach_copy_(self._views, own)
        tops = np.maximum.reduceat(values, starts)
        np.maximum(tops, -np.minimum.reduceat(values, starts), out=tops)
        largest[... if every else self._places] = tops
        over = _beyond(tops, bound)
        count = np.count_nonzero(over)
        before = self._squares()
        if not count:
            return before, before
        torch.nn.functional.hardtanh_(flat, -limit, limit)
        views = self._views
        if count < len(views):
            views = [view for view, changed in zip(views, over, strict=True) if changed]
            own = [tensor for tensor, changed in zip(own, over, strict=True) if changed]
        torch._foreach_copy_(own, views)
        return before, self._squares()

    def _squares(self) -> float:
        """The sum of the squares of the copy."""
        with np.errstate(over="ignore"):
            squares = float(np.dot(self._values, self._values))
        return squares if _is_usual(squares) else _exact_squares(self._flat)


def _beyond(largest: Any, bound: Any) -> Any:
    """Where a tensor must be cut; NaN is beyond, too: other elements beside it may be."""
    return ~(largest <= bound)


def _clamp_large(tensor: Tensor, limit: float, bound: Any) -> tuple[float, float, float]:
    """The largest element, and the sums of squares before and after."""
    largest = before = after = 0.0
    for piece in torch.split(tensor.view(-1), PIECE):
        low, high = torch.aminmax(piece)
        top = max(-low.item(), high.item())
        squares = _squares(piece, top)
        before += squares
        # Also where it is NaN, which stays the largest from then on.
        if not top <= largest:
            largest = top if largest == largest else largest
        if not top <= bound:
            torch.nn.functional.hardtanh_(piece, -limit, limit)
            squares = _squares(piece, limit)
        after += squares
    return largest, before, after


def _squares(flat: Tensor, largest: float) -> float:
    """The sum of the squares of elements of which none is larger than `largest`."""
    squares: float = torch.dot(flat, flat).item()
    return squares if _is_usual(squares) or not largest else _exact_squares(flat)


def _is_usual(squares: float) -> bool:
    """Whether a sum in float32 has neither overflowed nor lost what vanished."""
    return _LEAST <= squares < math.inf


def _exact_squares(flat: Tensor) -> float:
    norm: float = torch.linalg.vector_norm(flat, dtype=torch.float64).item()
    return norm * norm


def _root(squares: float) -> Tensor:
    """The norm ``(1,)``, float64 where float32 does not hold it."""
    norm = math.sqrt(squares)
    fits = not _MOST < norm < math.inf
    return torch.from_numpy(np.array([norm], np.float32 if fits else np.float64))
