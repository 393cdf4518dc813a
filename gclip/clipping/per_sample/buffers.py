"""What forward passes over single examples do to a model's buffers: running statistics, counters.

Every example's pass starts from the buffers as they were before the batch. Afterwards they become
what one pass over the whole batch would have made of them, where single passes can tell.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from gclip.errors import UsageError


class BufferSnapshot:
    """The buffers of a model as they are now, to be put back and to be told apart later."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._saved = {
            name: (buffer, buffer._version, buffer.detach().clone())
            for name, buffer in model.named_buffers()
        }

    def take(self) -> dict[str, Tensor]:
        """What changed since, by name; all is put back as it was."""
        changed: dict[str, Tensor] = {}
        for name, (buffer, version, value) in self._saved.items():
            owner, leaf = _owner(self._model, name)
            now = owner._buffers.get(leaf)
            if now is buffer and buffer._version == version:
                continue
            if now is not None:
                changed[name] = now.detach().clone()
            owner._buffers[leaf] = buffer
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(value)
                self._saved[name] = (buffer, buffer._version, value)
        return changed

    def stacked(self, rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """What `take` gave for each example, ``(examples, …)`` a buffer."""
        names = dict.fromkeys(name for row in rows for name in row)
        return {n: torch.stack([row.get(n, self._saved[n][2]) for row in rows]) for n in names}


def settle(model: nn.Module, changed: Mapping[str, Tensor]) -> None:
    """Give the buffers what a batch would have made of them; `changed` has a row an example.

    A buffer that every example leaves with the same value (a counter, the vectors of a spectral
    norm) takes it; the running statistics of an instance norm become their mean, as in torch.

    Raises:
        UsageError: a buffer of another module depends on the examples; no buffer was changed.
    """
    new: dict[str, Tensor] = {}
    for name, rows in changed.items():
        same = rows == rows[0]
        if bool(same.all()):
            new[name] = rows[0]
            continue
        owner, _ = _owner(model, name)
        if not isinstance(owner, _InstanceNorm):
            raise UsageError(
                f"the forward pass of {name.rpartition('.')[0] or 'the model'} "
                f"({type(owner).__name__}) changes its buffer {name!r} by what it sees, and what a "
                "whole batch makes of it cannot be told from single examples: put that module into "
                "eval mode, or clip the batch's gradient"
            )
        new[name] = torch.where(same.all(dim=0), rows[0], rows.mean(dim=0))
    with torch.no_grad():
        for name, value in new.items():
            owner, leaf = _owner(model, name)
            old = owner._buffers[leaf]
            if old is not None and old.shape == value.shape and old.dtype == value.dtype:
                old.copy_(value)
            else:
                owner._buffers[leaf] = value


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
