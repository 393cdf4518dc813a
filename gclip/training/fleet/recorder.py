"""What clipping did to each run of a fleet: the columns of a `Record`, for all runs at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gclip.clipping.nonfinite import FirstNonfinite, NonfiniteGradients, NonfiniteLog
from gclip.clipping.norms import norm_type
from gclip.clipping.record import COLUMNS, Record
from gclip.core.scaling import divisor

_MAX_STEPS, _MAX_FLOATS = 128, 1 << 20


class RecordEntry(NamedTuple):
    """One batch's part in a step; ``(rows, groups)``, or None where others in its chain count."""

    rows: Tensor
    before: Tensor | None
    after: Tensor | None
    limit: Tensor
    clipped: Tensor


class FleetRecorder:
    """Records the steps of `runs` runs, reduced for many steps at once."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self._reduced: list[Tensor] = []  # (steps, runs, columns)
        self._pending: list[tuple[list[RecordEntry], Tensor, Tensor]] = []
        self._capacity = _MAX_STEPS
        self._steps = 0
        self._nonfinite = NonfiniteLog(runs)

    def add(
        self,
        entries: list[RecordEntry],
        finite: Tensor,
        skipped: Tensor,
        nonfinite: NonfiniteGradients | None = None,
    ) -> None:
        """Add one step; `finite` and `skipped` are bool ``(runs, 1)``.

        `nonfinite` says whose gradients were not finite, where any may not be.
        """
        self._nonfinite.note(self._steps, finite, nonfinite)
        self._steps += 1
        if not self._pending:
            floats = sum(t.numel() for entry in entries for t in entry if t is not None)
            self._capacity = max(1, min(_MAX_STEPS, _MAX_FLOATS // max(floats, 1)))
        self._pending.append((entries, finite, skipped))
        if len(self._pending) >= self._capacity:
            self._reduce()

    def records(self) -> list[Record]:
        """Each run's record so far."""
        rows = self.rows()
        records = [Record() for _ in range(self.runs)]
        for run, record in enumerate(records):
            record.load_state_dict({"rows": rows[:, run]})
            record.locate(self._nonfinite.first(run))
        return records

    def select_runs(self, indices: list[int]) -> None:
        """Go on with the records of these runs alone."""
        rows = self.rows()
        self.runs = len(indices)
        self._reduced = [rows[:, indices].contiguous()] if len(rows) else []
        self._nonfinite.select_runs(indices)

    def state_dict(self) -> dict[str, Any]:
        """All steps so far, and where each run's gradients were not finite first."""
        first = [self._nonfinite.first(run) for run in range(self.runs)]
        found = [None if each is None else each.as_dict() for each in first]
        return {"rows": self.rows(), "first_not_finite": found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken, with records of the same runs."""
        rows = state["rows"]
        self._reduced, self._pending = [rows.clone()] if len(rows) else [], []
        self._steps, self._nonfinite = len(rows), NonfiniteLog(self.runs)
        for run, found in enumerate(state["first_not_finite"]):
            first = FirstNonfinite.from_dict(found)
            if first is not None:
                self._nonfinite.set_first(first, run)

    def rows(self) -> Tensor:
        """All steps so far, ``(steps, runs, columns)``, on the host."""
        self._reduce()
        if len(self._reduced) > 1:
            self._reduced = [
                torch.cat([rows.to(self._reduced[-1].device) for rows in self._reduced])
            ]
        if self._reduced:
            return self._reduced[0].cpu()
        return torch.zeros((0, self.runs, len(COLUMNS)), dtype=torch.float32)

    def _reduce(self) -> None:
        if self._pending:
            steps, finite, skipped = zip(*self._pending, strict=True)
            self._reduced.append(record_rows(steps, torch.stack(finite), torch.stack(skipped)))
            self._pending = []


def record_rows(steps: Sequence[list[RecordEntry]], finite: Tensor, skipped: Tensor) -> Tensor:
    """``(steps, runs, columns)`` from the entries of steps of the same batches; float64 where
    norms are, else float32."""
    count, runs = finite.shape[:2]
    exact = torch.float32 if finite.device.type == "mps" else torch.float64
    zeros = torch.zeros((count, runs), dtype=exact, device=finite.device)
    clipped = zeros.clone()
    groups, limit = zeros[0].clone(), zeros.clone()
    dtype = norm_type([entry.limit for step in steps for entry in step])
    for entries in zip(*steps, strict=True):
        rows = entries[0].rows
        limits = torch.stack([entry.limit for entry in entries]).to(exact)
        limit.index_copy_(1, rows, limits[..., 0])
        flags = torch.stack([entry.clipped for entry in entries])
        clipped.index_add_(1, rows, flags.to(exact).sum(dim=2))
        groups.index_add_(0, rows, torch.full_like(groups, flags.shape[2])[: len(rows)])
    single_limit = torch.where(groups == 1, limit, math.nan)
    share = clipped / groups
    before, after = (_l2(steps, column, zeros, dtype) for column in (1, 2))
    flags_of_runs = (each.view(count, runs).to(exact) for each in (finite, skipped))
    columns = (before, after, single_limit, share, *flags_of_runs)
    return torch.stack(columns, dim=2).to(dtype)


def _l2(
    steps: Sequence[list[RecordEntry]], column: int, zeros: Tensor, dtype: torch.dtype
) -> Tensor:
    """The L2 norm of each run's norms, ``(steps, runs)`` like `zeros`."""
    found = [
        (entries[0].rows, torch.stack([entry[column] for entry in entries]).to(zeros))
        for entries in zip(*steps, strict=True)
        if entries[0][column] is not None
    ]
    squares = zeros.clone()
    if dtype == torch.float32:  # whose squares fit into float64
        for rows, norms in found:
            squares.index_add_(1, rows, norms.square().sum(dim=2))
        return squares.sqrt()
    # Relative to the largest, whose square may be more (or less) than float64 holds.
    largest = zeros.clone()
    for rows, norms in found:
        largest[:, rows] = torch.maximum(largest[:, rows], norms.amax(dim=2))
    safe = divisor(largest)
    for rows, norms in found:
        squares.index_add_(1, rows, (norms / safe[:, rows].unsqueeze(2)).square().sum(dim=2))
    return safe * squares.sqrt()
