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
    found = _read({n: _norm(grad) for n, grad in grads.items()})
    # squares may overflow or vanish: once more, in float64
    again = {n: _norm(grads[n], wide=True) for n, v in found.items() if not v or math.isinf(v)}
    return {**found, **_read(again)}


@torch.no_grad()
def largest_element(grads: Iterable[Tensor]) -> float:
    """The largest absolute element of all; 0 where there is none."""
    largest = [float(full_tensor(_elements(g).abs().max())) for g in grads if g.numel()]
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


def _norm(grad: Tensor, *, wide: bool = False) -> Tensor:
    elements = _elements(grad)
    if elements.is_complex():
        elements = torch.view_as_real(elements.resolve_conj())
    if wide and elements.device.type != "mps":
        return full_tensor(torch.linalg.vector_norm(elements, dtype=torch.float64))
    half = elements.dtype.itemsize < 4
    return full_tensor(torch.linalg.vector_norm(elements, dtype=torch.float32 if half else None))


def _read(norms: Mapping[int, Tensor]) -> dict[int, float]:
    """The values, with one wait for each device and dtype, not one for each gradient."""
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for n, norm in norms.items():
        kinds.setdefault((norm.device, norm.dtype), []).append(n)
    found: dict[int, float] = {}
    for numbers in kinds.values():
        values = torch.stack([norms[n] for n in numbers]).tolist()
        found.update(zip(numbers, values, strict=True))
    return {n: found[n] for n in norms}


def _elements(grad: Tensor) -> Tensor:
    return grad.coalesce().values() if grad.is_sparse else grad
