"""How large gradients are, read without touching them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from gclip.doctor.events import Norms


@torch.no_grad()
def norms_of(params: Mapping[int, Tensor]) -> Norms:
    """The L2 norm of each parameter's gradient, NaN and inf where it is not finite.

    Args:
        params: parameters by their numbers; those without a gradient are left out.
    """
    grads = {n: p.grad.detach() for n, p in params.items() if p.grad is not None}
    if not grads:
        return {}
    norms = [_norm(grad) for grad in grads.values()]
    # one wait for each device, not one for each gradient
    devices = {norm.device for norm in norms}
    found: dict[int, float] = {}
    for device in devices:
        here = [n for n, norm in zip(grads, norms, strict=True) if norm.device == device]
        values = torch.stack([norm for norm in norms if norm.device == device]).tolist()
        found.update(zip(here, values, strict=True))
    return {n: found[n] for n in grads}


@torch.no_grad()
def largest_element(grads: Iterable[Tensor]) -> float:
    """The largest absolute element of all; 0 where there is none."""
    largest = [float(_elements(g).abs().max()) for g in grads if _elements(g).numel()]
    if any(map(math.isnan, largest)):
        return math.nan
    return max(largest, default=0.0)


def full_tensor(value: Tensor) -> Tensor:
    """A tensor's value over all processes, where it is spread over several."""
    full: Callable[[], Tensor] | None = getattr(value, "full_tensor", None)
    return value if full is None else full()


def gradient_elements(params: Sequence[Tensor]) -> int:
    """How many elements the gradients have."""
    return sum(p.numel() for p in params if p.grad is not None)


def _norm(grad: Tensor) -> Tensor:
    """In float64: half-precision norms overflow, and the square of a large float32 does, too."""
    elements = _elements(grad)
    if elements.is_complex():
        elements = torch.view_as_real(elements.resolve_conj())
    wide = torch.float32 if elements.device.type == "mps" else torch.float64
    norm = torch.linalg.vector_norm(elements, dtype=wide)
    # a DTensor's own value is only this process's shard of it
    return full_tensor(norm)


def _elements(grad: Tensor) -> Tensor:
    return grad.coalesce().values() if grad.is_sparse else grad
