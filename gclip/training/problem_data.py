"""What a problem's runs share, and how it comes onto a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ProblemData:
    """What `Problem.data` gave, with the names it goes by.

    Attributes:
        name: the task's spelling.
        value: the data itself.
        identity: what ``RunConfig.data`` holds.
    """

    name: str
    value: Any
    identity: str = ""

    def to(self, device: torch.device | str) -> ProblemData:
        """The same on another device."""
        there = moved(self.value, torch.device(device))
        return ProblemData(name=self.name, value=there, identity=self.identity)


def moved(value: Any, device: torch.device) -> Any:
    """`value` with its tensors on `device`: in lists, tuples and dicts, and where it has ``to``."""
    if isinstance(value, Mapping):
        return {key: moved(each, device) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(each, device) for each in value))
    if isinstance(value, (list, tuple)):
        return type(value)(moved(each, device) for each in value)
    if isinstance(value, Tensor) or callable(getattr(value, "to", None)):
        return value.to(device)
    return value
