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

    def __init__(self, clipper: StackedClipper, stacks: Sequence[Tensor], span: slice) -> None:
        self.clipper, self.span = clipper, span
        self._params = stacks
        self._before: list[Tensor] | None = None
        self._deltas: list[Tensor | None] = []

    @property
    def is_saved(self) -> bool:
        """Whether the parameters before a step are saved, waiting for the step."""
        return self._before is not None

    def save(self) -> None:
        """Before the optimizer's step: save the parameters as they are."""
        self._before = [stack.clone() for stack in self._stacks()]

    def measure(self, recording: bool) -> Tensor:
        """After the optimizer's step: measure the updates; which are finite, ``(runs, 1)``."""
        saved = self._before or []
        self._deltas = [
            stack - before if grad is not None else None
            for stack, before, grad in zip(
                self._stacks(), saved, gradients(self._params), strict=True
            )
        ]
        return self.clipper.measure(self._deltas, recording)

    def clip(
        self,
        step: int,
        total_steps: int | None,
        hyperparameters: FleetHyperparameters,
        finite: Tensor,
        recording: bool,
        *,
        keep_nonfinite: bool = False,
    ) -> Tensor | None:
        """Ask each strategy, clip, let it learn; which runs want no step, ``(runs, 1)``.

        Args:
            step, total_steps: as a strategy sees them.
            hyperparameters: of all runs of the fleet.
            finite: bool ``(runs of the span, 1)``: which may remember the step; or `ALL_FINITE`.
            recording: whether norms are measured for the record.
            keep_nonfinite: whether updates that are not finite are clipped all the same.
        """
        saved = self._before or []
        pairs = zip(saved, self._params, strict=True)
        weights_before = [each if param.requires_grad else None for each, param in pairs]
        weights = StackedNorms(
            weights_before,
            self.clipper.parameters,
            self.clipper.runs,
            saved[0].device,
            spans=self.clipper.spans,
            recheck=False,
        )
        sources = [None if g is None else g[self.span] for g in gradients(self._params)]
        inputs = StepInputs(
            step,
            total_steps,
            self._deltas,
            weights,
            sources,
            hyperparameters.select_runs(self.span),
            finite,
            keep_nonfinite,
        )
        return self.clipper.clip(inputs, recording)

    def select_runs(
        self, new_index: Mapping[int, int], stacks: Sequence[Tensor]
    ) -> FleetUpdateClipper | None:
        """The same for fewer runs; `new_index` says where each that stays goes."""
        start = self.span.start
        rows = {row for batch in self.clipper.batches for row in batch.rows}
        staying = {row: new_index[row + start] for row in rows if row + start in new_index}
        if not staying:
            return None
        first, end = min(staying.values()), max(staying.values()) + 1
        moved = {row: index - first for row, index in staying.items()}
        clipper = self.clipper.select_runs(moved, end - first)
        return FleetUpdateClipper(clipper, stacks, slice(first, end))

    @property
    def deltas(self) -> Sequence[Tensor | None]:
        """The updates, to be clipped in place; None where there is no gradient."""
        return self._deltas

    def write(self, skipped: Tensor | None) -> None:
        """Give the parameters the updates as clipped; what did not change keeps its bits.

        Runs where `skipped`, bool ``(runs of the span, 1)``, is true have the bits of before.
        """
        stacks, saved = self._stacks(), self._before or []
        for stack, before, delta in zip(stacks, saved, self._deltas, strict=True):
            if delta is not None:
                new = torch.where(delta == stack - before, stack, before + delta)
                if skipped is not None:
                    out = skipped.view(-1, *[1] * (stack.ndim - 1))
                    new = torch.where(out, before, new)
                stack.copy_(new)
        self.discard()

    @torch.no_grad()
    def restore(self) -> None:
        """Take the step back."""
        torch._foreach_copy_(self._stacks(), self._before or [])
        self.discard()

    @property
    def skips(self) -> bool:
        """Whether the rule of a strategy is ``skip``."""
        return any(batch.rule == "skip" for batch in self.clipper.batches)

    def _stacks(self) -> list[Tensor]:
        """The runs' parameters as they are now."""
        return [param.detach()[self.span] for param in self._params]

    def discard(self) -> None:
        """Forget the parameters before the step."""
        self._before, self._deltas = None, []
