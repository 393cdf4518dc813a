"""The update side of a fleet: the steps that an optimizer has just taken, clipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from gclip.clipping.gradients import gradients
from gclip.clipping.pending_update import PendingUpdate
from gclip.training.fleet import broadcast
from gclip.training.fleet.hyperparameters import FleetHyperparameters
from gclip.training.fleet.stacked_clipper import StackedClipper
from gclip.training.fleet.stacked_norms import StackedNorms
from gclip.training.fleet.strategy_batch import StepInputs


class FleetUpdateClipper(PendingUpdate):
    """The strategies that clip updates, and the parameters before a step.

    Args:
        span: the runs that have such strategies, and those between them: no others are copied.
    """

    def __init__(
        self, clipper: StackedClipper, stacks: Sequence[Tensor], span: slice, *, recording: bool
    ) -> None:
        super().__init__()
        self.clipper, self.span = clipper, span
        self._params, self._recording = stacks, recording

    def current(self) -> list[Tensor]:
        """The runs' parameters as they are now, detached."""
        return [param.detach()[self.span] for param in self._params]

    def measure(self) -> Tensor:
        """After the optimizer's step: measure the updates; which are finite, ``(runs, 1)``."""
        return self.clipper.measure(self.take(gradients(self._params)), self._recording)

    def zero(self, skip: Tensor) -> None:
        """Set the updates to zero of runs where `skip`, bool ``(runs of the span, 1)``."""
        broadcast.zero_runs(self._deltas, skip)

    def select(self, flags: Tensor) -> Tensor:
        """Of ``(runs, 1)``, those of the span."""
        return flags[self.span]

    def merge(self, skip: Tensor | None, wants_skip: Tensor) -> Tensor:
        """Which of all runs are skipped, ``(runs, 1)``."""
        runs = len(self._params[0])
        skip = wants_skip.new_zeros((runs, 1)) if skip is None else skip.clone()
        skip[self.span] |= wants_skip
        return skip

    def clip(
        self,
        step: int,
        total_steps: int | None,
        hyperparameters: FleetHyperparameters,
        finite: Tensor,
        *,
        keep_nonfinite: bool = False,
    ) -> Tensor | None:
        """Ask each strategy, clip, let it learn; which runs want no step, ``(runs, 1)``.

        Args:
            step, total_steps: as a strategy sees them.
            hyperparameters: of all runs of the fleet.
            finite: bool ``(runs of the span, 1)``: which may remember the step; or `ALL_FINITE`.
            keep_nonfinite: whether updates that are not finite are clipped all the same.
        """
        pairs = zip(self.before, self._params, strict=True)
        weights_before = [each if param.requires_grad else None for each, param in pairs]
        weights = StackedNorms(
            weights_before,
            self.clipper.parameters,
            self.clipper.runs,
            self.before[0].device,
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
        return self.clipper.clip(inputs, self._recording)

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
        span = slice(first, end)
        return FleetUpdateClipper(clipper, stacks, span, recording=self._recording)

    @property
    def skips(self) -> bool:
        """Whether the rule of a strategy is ``skip``."""
        return any(batch.rule == "skip" for batch in self.clipper.batches)
