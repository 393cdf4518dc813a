"""Element by element, in pieces that a cache holds.

What is computed in several steps makes a tensor at each. Those of large tensors leave the cache
before the next step reads them, and their memory is given back to the system and asked for again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gclip.core.host import on_host

PIECE = 1 << 17
"""Elements of a piece."""


def in_pieces(
    function: Callable[..., tuple[Tensor, ...]], values: Tensor, *others: Any
) -> tuple[Tensor, ...]:
    """What `function` makes of `values` ``(…, elements)`` and `others`, element by element.

    On a CPU, of large tensors, it is called for one piece of the last dimension after another.

    Args:
        function: of pieces of `values` and of those `others` whose last dimension is that of
            `values`, the rest as they are; gives new tensors of the shape and dtype of its first.
        values: that decide on the pieces.
        others: more arguments.
    """
    if values.numel() <= PIECE or not on_host(values):
        return function(values, *others)
    elements = values.shape[-1]
    step = max(1, PIECE * elements // values.numel())
    found: tuple[Tensor, ...] = ()
    for start in range(0, elements, step):
        place = (..., slice(start, start + step))
        own = [
            other[place]
            if isinstance(other, Tensor) and other.ndim and other.shape[-1] == elements
            else other
            for other in others
        ]
        pieces = function(values[place], *own)
        if not found:
            found = tuple(torch.empty_like(values, dtype=piece.dtype) for piece in pieces)
        for whole, piece in zip(found, pieces, strict=True):
            whole[place].copy_(piece)
    return found
