"""Steps left out in a row: a run that skips for good should say so, not fall silent."""

from __future__ import annotations

import warnings
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from gclip.clipping.async_copy import AsyncCopy
from gclip.core.host import on_host
from gclip.errors import UsageError, choose

OnSkips: TypeAlias = Literal["warn", "raise"]
ON_SKIPS: tuple[str, ...] = get_args(OnSkips)
MOST_SKIPS = 20
_GPU_STEPS = 32  # how many steps pass between two looks at a counter on a GPU


class SkipMonitor:
    """Counts the steps skipped in a row, without waiting for a GPU.

    Args:
        most: how many are too many; None for any number.
        then: ``warn`` once a row, or ``raise``.

    Raises:
        UsageError: `most` is no whole number ≥ 1, or `then` is something else.
    """

    def __init__(self, most: int | None, then: OnSkips) -> None:
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise UsageError(
                f"max_consecutive_skips must be a whole number ≥ 1, or None, but got {most!r}"
            )
        choose(then, ON_SKIPS, "on_max_skips")
        self._most, self._then = most, then
        self._row = 0
        self._on_device: Tensor | None = None  # steps in a row now, and the longest row so far
        self._sent: AsyncCopy | None = None
        self._since = 0

    def note(self, skip: Tensor | None) -> None:
        """Note whether a step was skipped, bool ``(1,)``; None: no.

        Raises:
            FloatingPointError: too many were, and the policy is ``raise``.
        """
        if skip is None and self._on_device is None:
            self._row = 0
            return
        if self._most is None:
            return
        if self._on_device is None and skip is not None and on_host(skip):
            self._row = self._row + 1 if bool(skip) else 0
            if self._row == self._most:
                self._tell(self._row)
            return
        self._note_on_device(skip)

    def _note_on_device(self, skip: Tensor | None) -> None:
        if skip is not None and self._on_device is None:
            self._on_device = torch.tensor([self._row, 0], device=skip.device)
        if self._on_device is None:
            return
        row, longest = self._on_device.unbind()
        row = torch.zeros_like(row) if skip is None else torch.where(skip.view(()), row + 1, 0)
        longest = torch.maximum(longest, row)
        self._since += 1
        if self._sent is None and self._since >= _GPU_STEPS:
            self._sent, self._since = AsyncCopy(longest), 0
            longest = torch.zeros_like(longest)
        self._on_device = torch.stack([row, longest])
        if self._sent is not None and self._sent.ready:
            reported, self._sent = int(self._sent.values()), None
            if self._most is not None and reported >= self._most:
                self._tell(reported)

    def _tell(self, row: int) -> None:
        message = (
            f"{row} steps in a row were skipped, because their gradients were not finite or a "
            "strategy's rule is skip: the model has stopped learning. Lower the learning rate, "
            "loosen the rule, or see which parameters are not finite with nonfinite='raise'"
        )
        if self._then == "raise":
            raise FloatingPointError(message)
        warnings.warn(message, stacklevel=6)
