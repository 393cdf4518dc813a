"""Memory as it is saved and loaded: copies of tensors, in dicts and lists, with plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gclip.errors import UsageError


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


def selected(value: Any, places: Tensor, count: int) -> Any:
    """Nested memory of `count` groups, of which only those at `places` are kept, in that order.

    Every tensor of a memory has the groups first, ``(groups, …)``, or is the same for all.
    """
    if isinstance(value, Tensor):
        if value.ndim and value.shape[0] == count:
            return value.index_select(0, places.to(value.device))
        return value
    if isinstance(value, Mapping):
        return {key: selected(entry, places, count) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [selected(entry, places, count) for entry in value]
    return value
