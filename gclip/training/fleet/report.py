"""What one step of a fleet's clipper saw and did, run by run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from gclip.clipping.report import ClipReport, Stage
from gclip.clipping.rules import Decision
from gclip.training.fleet.recorder import RecordEntry, record_rows
from gclip.training.fleet.strategy_batch import StrategyBatch


class FleetReport:
    """Tensors ``(runs,)`` on the gradients' device, computed when read; see `of` for one run.

    The columns are those of a `gclip.Record`.

    Args:
        batches: the strategies that the report is about, each with the run of its first row.
        entries: what they did, for the columns.
        finite, skipped: bool ``(runs,)``.

    Attributes:
        finite: bool, whether all gradients of the run were finite.
        skipped: bool, whether the run's gradients were set to zero.
    """

    def __init__(
        self,
        batches: Sequence[tuple[int, StrategyBatch]],
        entries: list[RecordEntry],
        finite: Tensor,
        skipped: Tensor,
    ) -> None:
        self._decisions: list[tuple[int, StrategyBatch, Decision]] = [
            (offset, batch, batch.decision) for offset, batch in batches
        ]
        self._entries = entries
        self.finite, self.skipped = finite, skipped

    @property
    def norm(self) -> Tensor:
        """Each run's total L2 norm before clipping, whatever norm its strategy is about."""
        return self._rows[:, 0]

    @property
    def clipped_norm(self) -> Tensor:
        """Each run's total L2 norm after clipping."""
        return self._rows[:, 1]

    @property
    def limit(self) -> Tensor:
        """Each run's limit where it has one group, else NaN."""
        return self._rows[:, 2]

    @property
    def clipped(self) -> Tensor:
        """The share of each run's groups that were clipped."""
        return self._rows[:, 3]

    def of(self, run: int) -> ClipReport:
        """The report that a clipper of that run alone would give."""
        stages = [
            Stage(
                strategy=str(batch.strategy.strategies[row]),
                labels=batch.groups.single_run.labels,
                norm=decision.norm[row],
                limit=decision.limit[row],
                clipped_norm=decision.clipped_norm[row],
                clipped=decision.clipped[row],
            )
            for offset, batch, decision in self._decisions
            if run - offset in batch.rows
            for row in [batch.rows.index(run - offset)]
        ]
        runs = slice(run, run + 1)
        return ClipReport(stages, self.finite[runs], self.skipped[runs])

    @cached_property
    def _rows(self) -> Tensor:
        with torch.no_grad():
            return record_rows(
                [self._entries], *(each.view(1, -1, 1) for each in (self.finite, self.skipped))
            )[0]

    def __repr__(self) -> str:
        clipped, bad = int((self.clipped > 0).sum()), int((~self.finite).sum())
        state = f", {bad} not finite" if bad else ""
        return f"FleetReport({len(self.finite)} runs, {clipped} clipped{state})"
