"""Norms of tensors: one read, summed in float32 or wider, by the fastest call of the device.

The norm of a float64 tensor is float64, that of any other float32. A complex element counts by its
modulus.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from gclip.core.host import on_host

_HALF = (torch.float16, torch.bfloat16)
_DOUBLE = (torch.float64, torch.complex128)
_FEW_ELEMENTS = 1 << 17
_SMALLEST_RANGE = torch.finfo(torch.float16).max


def norm_type(tensors: Iterable[Tensor | None]) -> torch.dtype:
    """The dtype of norms that these share: float64 where any tensor is, else float32."""
    double = any(tensor is not None and tensor.dtype in _DOUBLE for tensor in tensors)
    return torch.float64 if double else torch.float32


def sum_type(tensor: Tensor, float64: bool = False) -> torch.dtype | None:
    """The dtype to sum in: float32 for half precision, whose norms overflow at 65,504.

    float64 where `float64`, and on CUDA, where it costs nothing beside the memory traffic and lets
    float32 gradients of nearly any size have a finite norm; on a CPU see `Groups.measure`.
    """
    exact = float64 or (tensor.device.type == "cuda" and tensor.dtype not in _HALF)
    if tensor.is_complex():  # whose norms are real, though summed in a complex dtype
        narrow = torch.complex64 if tensor.dtype == torch.complex32 else None
        return torch.complex128 if exact else narrow
    if exact:
        return torch.float64
    return torch.float32 if tensor.dtype in _HALF else None


def total(each: Tensor, order: float, float64: bool = False) -> Tensor:
    """The norm of all, ``(1,)``, from one norm a tensor."""
    if each.shape[0] == 1:
        return each
    if order == 2.0 and not float64 and each.device.type == "cpu":
        return torch.dot(each, each).sqrt_().view(1)
    sums = each if each.device.type == "mps" else each.double()  # MPS has no float64
    norm: Tensor = torch.linalg.vector_norm(sums, order, dim=0, keepdim=True)
    return norm.to(each.dtype)


def tensor_norms(
    tensors: list[Tensor], order: float, device: torch.device, float64: bool
) -> Tensor:
    """The norm of each tensor, ``(tensors,)`` of their `norm_type` on `device`.

    Args:
        tensors: of any shapes and dtypes.
        order: p.
        device: of the norms.
        float64: whether to sum in float64.
    """
    if device.type == "cuda" and all(t.device == device and t.numel() for t in tensors):
        return _multi_tensor_norms(tensors, order)
    if order == 2.0 and not float64 and device.type == "cpu":
        return torch.stack(_squares(tensors)).sqrt_()
    ordered = order == math.inf and device.type == "cpu"
    if ordered and all(t.numel() and not t.is_complex() for t in tensors):
        lows, highs = zip(*map(torch.aminmax, tensors), strict=True)
        norms = torch.maximum(torch.stack(highs), torch.stack(lows).neg_())
        return norms if norms.dtype not in _HALF else norms.float()
    dtype = norm_type(tensors)
    found = [_one_norm(t, order, float64) for t in tensors]
    return torch.stack([n.to(device=device, dtype=dtype) for n in found])


def global_norm(tensors: list[Tensor], order: float, device: torch.device, float64: bool) -> Tensor:
    """The norm of all tensors together, ``(1,)`` of their `norm_type` on `device`; 0 for none.

    Args:
        tensors: of any shapes and dtypes.
        order: p.
        device: of the norm.
        float64: whether to sum in float64.
    """
    if not tensors:
        return torch.zeros(1, dtype=torch.float32, device=device)
    if order == 2.0 and not float64 and device.type == "cpu":
        return torch.stack(_squares(tensors)).sum(0, keepdim=True).sqrt_()
    return total(tensor_norms(tensors, order, device, float64), order, float64)


def _multi_tensor_norms(tensors: list[Tensor], order: float) -> Tensor:
    by_type: dict[torch.dtype | None, list[int]] = {}
    for i, tensor in enumerate(tensors):
        by_type.setdefault(tensor.dtype, []).append(i)
    parts, places = [], []
    for same in by_type.values():
        group = [tensors[i] for i in same]
        norms = torch._foreach_norm(group, order, dtype=sum_type(group[0]))
        parts.append(torch.stack(norms).to(norm_type(group)))
        places += same
    if len(parts) == 1:
        return parts[0]
    back = torch.tensor(places).argsort().to(parts[0].device, non_blocking=True)
    return torch.cat(parts)[back]


def _squares(tensors: list[Tensor]) -> list[Tensor]:
    """The squared L2 norm of each tensor on a CPU, scalars.

    One dot product a tensor is the fastest read there is.
    """
    # (A list and not any() over a generator: half the time.)
    if not [t for t in tensors if t.dtype is not torch.float32 or not t.is_contiguous()]:
        dot = torch.dot
        return [dot(f, f) for f in [t if t.ndim == 1 else t.view(-1) for t in tensors]]
    return [_square(t) for t in tensors]


def _square(tensor: Tensor) -> Tensor:
    """The squared L2 norm, a scalar."""
    if tensor.dtype == torch.float32 and tensor.is_contiguous():
        flat = tensor.view(-1)
        return torch.dot(flat, flat)
    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=sum_type(tensor))
    return norm * norm


def _one_norm(tensor: Tensor, order: float, float64: bool) -> Tensor:
    """One tensor's norm as a scalar on its own device."""
    if tensor.numel() == 0:
        return torch.zeros((), dtype=torch.float32, device=tensor.device)
    if order == math.inf:
        if tensor.is_complex():
            return tensor.abs().amax()
        low, high = torch.aminmax(tensor)
        return torch.maximum(high, low.neg_())
    norm: Tensor = torch.linalg.vector_norm(tensor, order, dtype=sum_type(tensor, float64))
    return norm


def multiply(tensors: list[Tensor], factor: Tensor) -> None:
    """Multiply all by one number, a scalar tensor, in place."""
    if factor.is_cpu and not [tensor for tensor in tensors if not tensor.is_cpu]:
        torch._foreach_mul_(tensors, factor)
        return
    devices = {tensor.device for tensor in tensors}
    if devices == {factor.device}:
        torch._foreach_mul_(tensors, factor)
        return
    for device in devices:
        torch._foreach_mul_([t for t in tensors if t.device == device], factor.to(device))


ALL_FINITE = torch.ones(1, dtype=torch.bool)
NOT_FINITE = torch.zeros(1, dtype=torch.bool)


def all_finite(norms: Tensor) -> Tensor:
    """Whether all are finite, bool ``(1,)``; on a CPU the tensor `ALL_FINITE` or `NOT_FINITE`."""
    if on_host(norms):
        if norms.numel() == 1:
            return ALL_FINITE if math.isfinite(norms.item()) else NOT_FINITE
        return ALL_FINITE if np.isfinite(norms.numpy()).all() else NOT_FINITE
    return torch.isfinite(norms).all().view(1)


def clamp_elements(tensors: list[Tensor], low: float, high: float) -> None:
    """Cut every element to ``low..high``, in place; NaN stays NaN.

    A complex element beyond `high` gets that modulus and keeps its phase.
    """
    if max(-low, high) > _SMALLEST_RANGE:  # what a tensor's dtype does not hold cuts nothing
        for tensor in tensors:
            most = torch.finfo(tensor.dtype).max
            least = low if low >= -most else -math.inf
            _clamp([tensor], least, high if high <= most else math.inf)
        return
    _clamp(tensors, low, high)


def _clamp(tensors: list[Tensor], low: float, high: float) -> None:
    if not tensors:
        return
    sizes = [t.numel() for t in tensors if t.is_cpu and not t.is_complex()]
    if len(sizes) == len(tensors):
        if sum(sizes) <= _FEW_ELEMENTS:
            # A cache holds them, and a call for each takes longer than to write them twice.
            torch._foreach_clamp_min_(tensors, low)
            torch._foreach_clamp_max_(tensors, high)
            return
        for tensor in tensors:
            # The same kernel as clamp_, with less than half the time per call.
            torch.nn.functional.hardtanh_(tensor, low, high)
        return
    for tensor in tensors:
        if tensor.is_complex():
            clamp_modulus(tensor, high)
    real = [tensor for tensor in tensors if not tensor.is_complex()]
    if real:
        torch._foreach_clamp_min_(real, low)
        torch._foreach_clamp_max_(real, high)


def clamp_modulus(tensor: Tensor, limit: Tensor | float) -> None:
    """Cut a complex tensor's moduli at `limit`, in place, the phases kept; NaN stays NaN."""
    size = tensor.abs()
    most = limit.to(size) if isinstance(limit, Tensor) else torch.full_like(size, limit)
    set_modulus(tensor, torch.minimum(size, most))


def set_modulus(tensor: Tensor, size: Tensor) -> None:
    """Give the elements of a complex tensor these moduli, in place, and keep their phases.

    Elements whose modulus is that already keep their bits, and so do those with a NaN.
    """
    old, parts = tensor.abs(), torch.view_as_real(tensor)
    infinite = torch.isinf(parts)
    largest = parts.abs().amax(dim=-1, keepdim=True)
    # Of an infinite element the infinite parts are the direction.
    unit = torch.where(infinite.any(dim=-1, keepdim=True), parts.sign() * infinite, parts / largest)
    unit = unit / torch.linalg.vector_norm(unit, dim=-1, keepdim=True)
    ratio = torch.where(old > 0, size / old, 0.0).unsqueeze(-1)
    new = torch.where(torch.isinf(old).unsqueeze(-1), unit * size.unsqueeze(-1), parts * ratio)
    changed = (size != old) & ~torch.isnan(parts).any(dim=-1)
    parts.copy_(torch.where(changed.unsqueeze(-1), new, parts))


def any_positive(norms: Tensor) -> Tensor:
    """Whether any is not zero, bool ``(1,)``; on a CPU one of the two constant tensors."""
    if on_host(norms):
        if norms.numel() == 1:
            return ALL_FINITE if norms.item() else NOT_FINITE
        return ALL_FINITE if norms.numpy().any() else NOT_FINITE
    return norms.any().view(1)
