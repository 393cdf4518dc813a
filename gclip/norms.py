"""Norms of tensors: one read, summed in float32 or wider, by the fastest call of the device."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def on_host(tensor: Tensor) -> bool:
    """Whether a look at the tensor's values is free: on a CPU, and not while tracing a graph."""
    return (
        type(tensor) is Tensor and tensor.device.type == "cpu" and not torch.compiler.is_compiling()
    )


def sum_type(tensor: Tensor) -> torch.dtype | None:
    """The dtype to sum in: float32 for half precision, whose norms overflow at 65,504.

    float64 on CUDA, where it costs nothing beside the memory traffic and lets every finite
    float32 gradient have a finite norm; on a CPU see `Groups.norms`.
    """
    if tensor.dtype in _HALF:
        return torch.float32
    return torch.float64 if tensor.device.type == "cuda" else None


def total(each: Tensor, order: float, wide: bool = False) -> Tensor:
    """The norm of all, ``(1,)``, from one norm a tensor."""
    if each.shape[0] == 1:
        return each
    if order == 2.0 and not wide and each.device.type == "cpu":
        return torch.dot(each, each).sqrt_().view(1)
    sums = each if each.device.type == "mps" else each.double()  # MPS has no float64
    norm: Tensor = torch.linalg.vector_norm(sums, order, dim=0, keepdim=True)
    return norm.float()


def tensor_norms(tensors: list[Tensor], order: float, device: torch.device, wide: bool) -> Tensor:
    """The norm of each tensor, ``(tensors,)`` float32 on `device`."""
    if device.type == "cuda" and all(t.device == device and t.numel() for t in tensors):
        return _multi_tensor_norms(tensors, order)
    if order == 2.0 and not wide and device.type == "cpu":
        return torch.stack(_squares(tensors)).sqrt_()
    if order == math.inf and device.type == "cpu" and all(t.numel() for t in tensors):
        lows, highs = zip(*map(torch.aminmax, tensors), strict=True)
        return torch.maximum(torch.stack(highs), torch.stack(lows).neg_()).float()
    found = [_one_norm(t, order, wide) for t in tensors]
    return torch.stack([n.to(device=device, dtype=torch.float32) for n in found])


def global_norm(tensors: list[Tensor], order: float, device: torch.device, wide: bool) -> Tensor:
    """The norm of all tensors together, ``(1,)`` float32 on `device`; 0 for none."""
    if not tensors:
        return torch.zeros(1, device=device)
    if order == 2.0 and not wide and device.type == "cpu":
        return torch.stack(_squares(tensors)).sum(0, keepdim=True).sqrt_()
    return total(tensor_norms(tensors, order, device, wide), order, wide)


def _multi_tensor_norms(tensors: list[Tensor], order: float) -> Tensor:
    by_type: dict[torch.dtype | None, list[int]] = {}
    for i, tensor in enumerate(tensors):
        by_type.setdefault(tensor.dtype, []).append(i)
    parts, places = [], []
    for same in by_type.values():
        group = [tensors[i] for i in same]
        norms = torch._foreach_norm(group, order, dtype=sum_type(group[0]))
        parts.append(torch.stack(norms).float())
        places += same
    if len(parts) == 1:
        return parts[0]
    back = torch.tensor(places).argsort().to(parts[0].device, non_blocking=True)
    return torch.cat(parts)[back]


def _squares(tensors: list[Tensor]) -> list[Tensor]:
    """The squared L2 norm of each tensor on a CPU, float32 scalars.

    One dot product a tensor is the fastest read there is.
    """
    if all(t.dtype is torch.float32 and t.is_contiguous() for t in tensors):
        dot = torch.dot
        return [dot(flat, flat) for flat in [t.view(-1) for t in tensors]]
    return [_square(t) for t in tensors]


def _square(tensor: Tensor) -> Tensor:
    """The squared L2 norm, float32 scalar."""
    if tensor.dtype == torch.float32 and tensor.is_contiguous():
        flat = tensor.view(-1)
        return torch.dot(flat, flat)
    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=sum_type(tensor)).float()
    return norm * norm


def _one_norm(tensor: Tensor, order: float, wide: bool) -> Tensor:
    """One tensor's norm as a scalar on its own device."""
    if tensor.numel() == 0:
        return tensor.new_zeros((), dtype=torch.float32)
    if order == math.inf:
        low, high = torch.aminmax(tensor)
        return torch.maximum(high, low.neg_())
    dtype = torch.float64 if wide else sum_type(tensor)
    norm: Tensor = torch.linalg.vector_norm(tensor, order, dtype=dtype)
    return norm


def multiply(tensors: list[Tensor], factor: Tensor) -> None:
    devices = {tensor.device for tensor in tensors}
    if devices == {factor.device}:
        torch._foreach_mul_(tensors, factor)
        return
    for device in devices:
        torch._foreach_mul_([t for t in tensors if t.device == device], factor.to(device))


YES = torch.ones(1, dtype=torch.bool)
NO = torch.zeros(1, dtype=torch.bool)


def all_finite(norms: Tensor) -> Tensor:
    """Whether all are finite, bool ``(1,)``; on a CPU it is the very tensor `YES` or `NO`."""
    if on_host(norms):
        if norms.numel() == 1:
            return YES if math.isfinite(norms.item()) else NO
        return YES if np.isfinite(norms.numpy()).all() else NO
    return torch.isfinite(norms).all().view(1)


def clamp_elements(tensors: list[Tensor], low: float, high: float) -> None:
    """Cut every element to ``low..high``, in place; NaN stays NaN."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        for tensor in tensors:
            # The same kernel as clamp_, with less than half the time per call.
            torch.nn.functional.hardtanh_(tensor, low, high)
        return
    torch._foreach_clamp_min_(tensors, low)
    torch._foreach_clamp_max_(tensors, high)


def any_positive(norms: Tensor) -> Tensor:
    """Whether any is not zero, bool ``(1,)``; on a CPU it is the very tensor `YES` or `NO`."""
    if on_host(norms):
        if norms.numel() == 1:
            return YES if norms.item() else NO
        return YES if norms.numpy().any() else NO
    return norms.any().view(1)
