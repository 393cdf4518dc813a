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
