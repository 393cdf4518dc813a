"""Numbers on their way from the device: to look at them must not stop the work that goes on."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class _Event(Protocol):
    def query(self) -> bool: ...
    def synchronize(self) -> None: ...


class AsyncCopy:
    """The values of a tensor, copied to the host behind the work that is queued so far.

    On a GPU the copy goes into pinned memory and nobody waits for it; elsewhere the values are
    there at once.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._values = tensor.detach().to("cpu", non_blocking=tensor.device.type == "cuda")
        self._event = mark(tensor.device)

    @property
    def ready(self) -> bool:
        """Whether `values` would not wait."""
        return self._event is None or self._event.query()

    def values(self) -> Any:
        """The values as nested lists of numbers; waits for the copy."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


def mark(device: torch.device) -> _Event | None:
    """The place in the device's queue reached so far; None where nothing is queued."""
    if device.type != "cuda":
        return None
    event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event
