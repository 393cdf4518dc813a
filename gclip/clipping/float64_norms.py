"""The second look at norms whose sums of powers overflowed or vanished: in float64, and relative.

Float32 sums of squares are inf from gradients of 1e19 on, and lose elements under 1e-19. Where the
host sees norms in such a range, those alone are measured again, in float64.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gclip.core.host import on_host
from gclip.core.scaling import divisor

Mask = npt.NDArray[np.bool_]

_SMALL = 32


def exact_norm(tensor: Tensor, order: float, dims: tuple[int, ...] | None = None) -> Tensor:
    """The p-norm over `dims` (all by default) in float64, whatever the elements' size.

    Relative to the largest element, so that no power overflows or vanishes. Several passes.
    """
    size = tensor.abs().double()
    if not size.numel():
        left = () if dims is None else [n for i, n in enumerate(size.shape) if i not in dims]
        return size.new_zeros(left)
    largest = size.amax(dims or (), keepdim=True)
    safe = divisor(largest)
    norm: Tensor = safe * torch.linalg.vector_norm(size / safe, order, dims, keepdim=True)
    return norm.reshape(()) if dims is None else norm.squeeze(dims)


def recheck(norms: Tensor, rows: Tensor, order: float, *, keep_float64: bool = False) -> Tensor:
    """The norms ``(…)`` of `rows` ``(…, elements)``; those out of range are measured again.

    Args:
        norms: as they were measured.
        rows: what they are of.
        order: p.
        keep_float64: whether norms that were measured again are float64 where their own dtype
            would hold them, too.
    """
    if not out_of_range(norms, order):
        return norms
    exact = remeasure(norms, rows, order, out_of_range_mask(norms, order))
    return exact if keep_float64 else cast_if_representable(exact, norms.dtype)


def remeasure(norms: Tensor, rows: Tensor, order: float, mask: Mask) -> Tensor:
    """The norms ``(…)`` of `rows` ``(…, elements)`` as float64; those in the mask exact.

    Args:
        norms: as measured in float32.
        rows: what was measured, a row a norm.
        order: p.
        mask: which of them are measured again.
    """
    exact = norms.to(torch.float64, copy=True)
    indices = torch.from_numpy(np.flatnonzero(mask))
    if len(indices) and rows.shape[-1]:
        selected = rows.reshape(-1, rows.shape[-1]).index_select(0, indices)
        if bool(selected.any()):  # of zeros nothing is computed
            exact.view(-1)[indices] = exact_norm(selected, order, (1,))
    return exact


def out_of_range(norms: Tensor, order: float) -> bool:
    """Whether the host sees norms too large or too small for their sums of powers.

    Not finite, or so small that the powers of elements that matter may have vanished. Without a
    look at the values (on a GPU, while tracing) the answer is no.
    """
    return on_host(norms) and not in_range(norms, order)


def in_range(norms: Tensor, order: float) -> bool:
    """Whether norms on the host are all finite and none is too small: see `out_of_range`."""
    least, count = smallest_in_range(norms.dtype, order), norms.numel()
    if count == 1:
        return bool(least <= norms.item() < math.inf)
    if not count:
        return True
    if count <= _SMALL and norms.ndim == 1:  # in Python a third of the time
        values: list[float] = norms.tolist()
        # A NaN anywhere makes the sum NaN, which min and max may pass over.
        return least <= min(values) and max(values) < math.inf and sum(values) >= least
    low, high = torch.aminmax(norms)
    return bool(least <= low.item() and high.item() < math.inf)


@cache
def smallest_in_range(dtype: torch.dtype, order: float) -> float:
    """A norm under this may have lost powers of its elements to underflow."""
    if order == math.inf:
        return 0.0
    info = torch.finfo(dtype)
    return float((info.tiny / info.eps) ** (1 / order))


def out_of_range_mask(
    norms: Tensor, order: float, unit_counts: npt.NDArray[np.int_] | None = None
) -> Mask:
    """The norms ``(…, groups)`` on the host that `out_of_range` is about.

    Given how many units each tensor has, a zero beside larger ones of its tensor is in range.
    """
    values, least = norms.numpy(), smallest_in_range(norms.dtype, order)
    mask: Mask = ~((values >= least) & (values < math.inf))
    if unit_counts is not None:
        starts = np.add.accumulate(unit_counts) - unit_counts
        large = np.maximum.reduceat(values, starts, axis=-1) >= least
        mask &= (values != 0) | ~large.repeat(unit_counts, axis=-1)
    return mask


def only_dead_units(norms: Tensor, order: float, starts: npt.NDArray[np.int_]) -> bool:
    """Whether all norms on the host are in range, but for zeros beside larger units.

    `starts` are the indices of each tensor's first unit.
    """
    values, least = norms.numpy(), smallest_in_range(norms.dtype, order)
    largest = np.maximum.reduceat(values, starts)
    if not (least <= largest.min() and largest.max() < math.inf):
        return False
    return bool(np.count_nonzero(values >= least) == np.count_nonzero(values))


def cast_if_representable(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """float64 norms as `dtype`, if none that is finite is beyond it; else as they are."""
    narrow = exact.to(dtype)
    return exact if bool((torch.isinf(narrow) & ~torch.isinf(exact)).any()) else narrow
