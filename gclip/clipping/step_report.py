"""A step's report and its row in the record, from what each strategy decided."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.groups import Groups
from gclip.clipping.nonfinite import NonfiniteGradients
from gclip.clipping.norms import ALL_FINITE, NOT_FINITE
from gclip.clipping.record import Record
from gclip.clipping.report import ClipReport, Stage
from gclip.clipping.rules import Decision
from gclip.clipping.step_flags import concatenated
from gclip.core.strategy import Strategy


def step_report(
    parts: Sequence[BoundStrategy],
    finite: Tensor,
    skip: Tensor | None,
    *,
    totals: bool,
    record: Record | None,
    nonfinite: NonfiniteGradients | None = None,
) -> ClipReport:
    """What a step did.

    Args:
        parts: the strategies that it is about.
        finite: whether all gradients were, bool ``(1,)``.
        skip: whether the step is left out, bool ``(1,)``; None: no.
        totals: whether the strategies know the norms that a record adds up.
        record: that the step is added to, if any.
        nonfinite: whose gradients were not finite, where any may not be.
    """
    decisions = [(part.strategy, part.groups, part.decision) for part in parts]
    if skip is None:
        skip = NOT_FINITE if finite is ALL_FINITE else torch.zeros_like(finite)
    stages = partial(_stages, decisions)
    if not totals:
        return ClipReport(stages, finite, skip, nonfinite=nonfinite)
    before = [part.total_before for part in parts if part.first]
    after = [part.total_after for part in parts if part.last]
    if record is not None:
        record.add(
            concatenated(before),
            concatenated(after),
            concatenated([_by_group(decision.limit) for _, _, decision in decisions]),
            concatenated([_by_group(decision.clipped) for _, _, decision in decisions]),
            finite,
            skip,
            nonfinite,
        )
    return ClipReport(stages, finite, skip, partial(_totals, before, after), nonfinite)


def _by_group(values: Tensor) -> Tensor:
    """One entry a group; of single examples, ``(examples, groups)``, the mean over them."""
    return values if values.ndim == 1 else values.float().mean(dim=0)


def _totals(before: list[Tensor], after: list[Tensor]) -> tuple[Tensor, Tensor]:
    return concatenated(before), concatenated(after)


def _stages(decisions: list[tuple[Strategy, Groups, Decision]]) -> list[Stage]:
    return [
        Stage(
            strategy=str(strategy), labels=groups.labels, norm=decision.norm,
            limit=decision.limit, clipped_norm=decision.clipped_norm, clipped=decision.clipped,
        )
        for strategy, groups, decision in decisions
    ]  # fmt: skip
