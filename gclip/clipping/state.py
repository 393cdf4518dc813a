"""Memory as it is saved and loaded: copies of tensors, in dicts and lists, with plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gclip.errors import UsageError


def retyped(memory: Any, dtype: torch.dtype) -> Any:
    """Memory of norms of one dtype, made ready for norms of another, float32 or float64.

    What is float64 beside tensors that are float32 is so on purpose and stays. Coming down from
    float64, a finite number stays finite.
    """
    dtypes = {tensor.dtype for tensor in tensors_of(memory)}
    old = torch.float32 if torch.float32 in dtypes else torch.float64
    if old not in dtypes or old == dtype:
        return memory
    return _mapped(memory, lambda tensor: _cast(tensor, dtype) if tensor.dtype == old else tensor)


def tensors_of(memory: Any) -> list[Tensor]:
    """Every tensor in a memory."""
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    _mapped(memory, note)
    return tensors


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(entry, change) for key, entry in value.items()}
    if isinstance(value, list):
        return [_mapped(entry, change) for entry in value]
    if isinstance(value, tuple):
        entries = [_mapped(entry, change) for entry in value]
        named = getattr(type(value), "_make", tuple)  # a tuple with names keeps them
        return named(entries)
    return value


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.float32:
        most = torch.finfo(dtype).max
        tensor = torch.where(torch.isinf(tensor), tensor, tensor.clamp(-most, most))
    return tensor.to(dtype)


def copied(value: Any, device: torch.device | None = None) -> Any:
    """A deep copy (on `device` if given) of nested dicts, lists, tensors and numbers.

    Raises:
        UsageError: for anything else, which ``torch.load(weights_only=True)`` would refuse.
    """
    if isinstance(value, Tensor):
        return value.detach().clone() if device is None else value.detach().to(device, copy=True)
    if isinstance(value, Mapping):
        return {key: copied(entry, device) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [copied(entry, device) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UsageError(
        f"a strategy's memory holds tensors, numbers, lists and dicts, not {type(value).__name__}"
    )


def selected(value: Any, indices: Tensor, count: int) -> Any:
    """Nested memory of `count` groups, of which only those at `indices` are kept, in that order.

    Every tensor of a memory has the groups first, ``(groups, …)``, or is the same for all.
    """
    if isinstance(value, Tensor):
        if value.ndim and value.shape[0] == count:
            return value.index_select(0, indices.to(value.device))
        return value
    if isinstance(value, Mapping):
        return {key: selected(entry, indices, count) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [selected(entry, indices, count) for entry in value]
    return value
