"""What the clippers of one model and of a fleet do alike, around a step and an update."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, TypeAlias

import torch
from torch import Tensor

from gclip.clipping.norms import ALL_FINITE
from gclip.clipping.pending_update import PendingUpdate
from gclip.errors import UsageError, choose

Nonfinite: TypeAlias = Literal["skip", "raise", "keep"]
NONFINITE = ("skip", "raise", "keep")


class BaseClipper(ABC):
    """Measures gradients, asks strategies, clips; the optimizer's update too, where they want it.

    Args:
        nonfinite: what to do with a step in which a gradient is inf or NaN; see `gclip.Clipper`.

    Raises:
        UsageError: an unknown policy.
    """

    _updates: Any
    """The `PendingUpdate` of the strategies that clip updates; None where there are none."""

    def __init__(self, nonfinite: Nonfinite) -> None:
        choose(nonfinite, NONFINITE, "nonfinite policy")
        self.nonfinite: Nonfinite = nonfinite
        self._step = 0
        # Of a step whose update is still to come: whether it was finite, whether it is skipped.
        self._pending: tuple[Tensor, Tensor | None] | None = None
        self._warned = False

    @property
    def on_updates(self) -> bool:
        """Whether a strategy clips the optimizer's update, so that `updating` is needed."""
        return self._updates is not None

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Around ``optimizer.step()``: clip the update, for strategies of the side ``update``.

        ::

            if not clipper.step().skipped:
                with clipper.updating():
                    optimizer.step()

        `gclip.attach` and the trainer do this by themselves. Without such strategies it does
        nothing. Afterwards `report` is complete.
        """
        updates: PendingUpdate | None = self._updates
        if updates is None:
            yield
            return
        updates.save()
        try:
            yield
            if self._pending is not None:  # a closure may have called `step` only now
                with torch.no_grad():
                    self._clip_update(*self._pending)
        finally:
            updates.discard()
            self._pending = None

    def _clip_update(self, finite: Tensor, skip: Tensor | None) -> None:
        """After the optimizer's step: measure the update, ask, clip, write, report."""
        if torch.compiler.is_compiling():
            from gclip.clipping.graph_breaks import outside

            outside(self._clip_update, finite, skip)
            return
        updates: PendingUpdate = self._updates
        step = self._step - 1  # `step` has counted this one already
        update_finite = updates.measure()
        if self.nonfinite == "raise" and not bool(update_finite.all()):
            updates.restore()
            self._refuse_update(step, update_finite)
        # What a skipped step leaves is no update to learn from.
        learns = update_finite
        if finite is not ALL_FINITE:
            learns = learns & updates.select(finite).to(update_finite.device)
        if skip is not None:
            learns = learns & ~updates.select(skip).to(update_finite.device)
        wants_skip = self._ask_updates(step, learns)
        if update_finite is not ALL_FINITE:
            wants_skip = self._skip_nonfinite(wants_skip, update_finite)
        if wants_skip is not None:
            updates.zero(wants_skip)
            skip = updates.merge(skip, wants_skip)
        updates.write(None if skip is None else updates.select(skip))
        self._report_update(finite, skip)

    @abstractmethod
    def _ask_updates(self, step: int, learns: Tensor) -> Tensor | None:
        """Ask the strategies about the update, and clip it; what they want skipped.

        `learns` says where they may learn from it.
        """

    def _refuse_update(self, step: int, _finite: Tensor, /) -> NoReturn:
        """`FloatingPointError` for an update that is not finite."""
        raise FloatingPointError(f"the optimizer's update is not finite at step {step}")

    @abstractmethod
    def _report_update(self, finite: Tensor, skip: Tensor | None) -> None:
        """The step is complete: report it."""

    def _refuse_pending(self, hint: str = "") -> None:
        """`UsageError` where the last step's update went by unclipped."""
        updates: PendingUpdate | None = self._updates
        evaluating = updates is not None and updates.is_saved  # a closure, once more
        if self._pending is not None and not evaluating:
            raise UsageError(
                "the last update was not clipped: write `with clipper.updating(): "
                f"optimizer.step()`{hint}"
            )

    def _skip_nonfinite(self, skip: Tensor | None, finite: Tensor) -> Tensor | None:
        """What is to be skipped, and with it what is not `finite` where the policy says so."""
        if self.nonfinite != "skip":
            return skip
        return ~finite if skip is None else skip | ~finite

    def _warn_no_gradients(self, hint: str = "", *, stacklevel: int) -> None:
        """Once: no gradient anywhere is most likely a mistake in the loop."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                "no parameter has a gradient, so nothing was clipped: call clipper.step() after "
                "backward() and before zero_grad()" + hint,
                stacklevel=stacklevel + 1,
            )


def nonfinite_sentence(step: int, names: Sequence[str], whose: str = "") -> str:
    """What is raised under ``nonfinite="raise"``: the parameters `names` at a step."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    shown = ", ".join(names[:10]) + more or "their norm overflows"
    return f"gradients {whose}are not finite at step {step}: {shown}"
