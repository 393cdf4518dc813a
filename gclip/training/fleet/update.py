"""The update side of a fleet: the steps that an optimizer has just taken, clipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gclip.clipping.gradients import gradients
from gclip.training.fleet.hyperparameters import FleetHyperparameters
from gclip.training.fleet.stacked_clipper import StackedClipper
from gclip.training.fleet.stacked_norms import StackedNorms
from gclip.training.fleet.strategy_batch import StepInputs


class FleetUpdateClipper:
    """The strategies that clip updates, and the parameters before a step.

    Args:
        span: the runs that have such strategies, and those between them: no others are copied.
    """

    def __init__(self, side: StackedClipper, stacks: Sequence[Tensor], span: slice) -> None:
        self.side, self.span = side, span
        self._params = stacks
        self._kept: list[Tensor] | None = None
        self._deltas: list[Tensor | None] = []

    @property
    def held(self) -> bool:
        """Whether the parameters before a step are kept, waiting for the step."""
        return self._kept is not None

    def hold(self) -> None:
        """Before the optimizer's step: keep the parameters as they are."""
        self._kept = [stack.clone() for stack in self._stacks()]

    def measure(self, recording: bool) -> Tensor:
        """After the optimizer's step: measure the updates; which are finite, ``(runs, 1)``."""
        kept = self._kept or []
        self._deltas = [
            stack - before if grad is not None else None
            for stack, before, grad in zip(
                self._stacks(), kept, gradients(self._params), strict=True
            )
        ]
        return self.side.measure(self._deltas, recording)

    def clip(
        self, step: int, total_steps: int | None, rates: FleetHyperparameters, finite: Tensor,
        recording: bool, *, keep: bool = False,
    ) -> Tensor | None:  # fmt: skip
        """Ask each strategy, clip, let it learn; which runs want no step, ``(runs, 1)``."""
        kept = self._kept or []
        pairs = zip(kept, self._params, strict=True)
        trained = [each if param.requires_grad else None for each, param in pairs]
        weights = StackedNorms(
            trained,
            self.side.layout,
            self.side.runs,
            kept[0].device,
            spans=self.side.spans,
            again=False,
        )
        sources = [None if g is None else g[self.span] for g in gradients(self._params)]
        mine = rates.rows(self.span)
        now = StepInputs(step, total_steps, self._deltas, weights, sources, mine, finite, keep)
        return self.side.clip(now, recording)

    def pick(
        self, places: Mapping[int, int], stacks: Sequence[Tensor]
    ) -> FleetUpdateClipper | None:
        """The same for fewer runs; `places` says where each that stays goes."""
        start = self.span.start
        mine = {row for batch in self.side.batches for row in batch.rows}
        goes = {row: places[row + start] for row in mine if row + start in places}
        if not goes:
            return None
        first, end = min(goes.values()), max(goes.values()) + 1
        moved = {row: place - first for row, place in goes.items()}
        return FleetUpdateClipper(self.side.pick(moved, end - first), stacks, slice(first, end))

    @property
    def deltas(self) -> Sequence[Tensor | None]:
        """The updates, to be clipped in place; None where there is no gradient."""
        return self._deltas

    def settle(self, skipped: Tensor | None) -> None:
        """Give the parameters the updates as clipped; what did not change keeps its bits.

        Runs where `skipped`, bool ``(runs of the span, 1)``, is true have the bits of before.
        """
        stacks, kept = self._stacks(), self._kept or []
        for stack, before, delta in zip(stacks, kept, self._deltas, strict=True):
            if delta is not None:
                new = torch.where(delta == stack - before, stack, before + delta)
                if skipped is not None:
                    out = skipped.view(-1, *[1] * (stack.ndim - 1))
                    new = torch.where(out, before, new)
                stack.copy_(new)
        self.drop()

    @torch.no_grad()
    def undo(self) -> None:
        """Take the step back."""
        torch._foreach_copy_(self._stacks(), self._kept or [])
        self.drop()

    @property
    def skips(self) -> bool:
        """Whether the rule of a strategy is ``skip``."""
        return any(batch.rule == "skip" for batch in self.side.batches)

    def _stacks(self) -> list[Tensor]:
        """The runs' parameters as they are now."""
        return [param.detach()[self.span] for param in self._params]

    def drop(self) -> None:
        """Forget the parameters before the step."""
        self._kept, self._deltas = None, []
