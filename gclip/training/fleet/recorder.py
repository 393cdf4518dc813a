"""What clipping did to each run of a fleet: the columns of a `Record`, for all runs at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gclip.clipping.norms import norm_type
from gclip.clipping.record import COLUMNS, Record

_MOST_STEPS, _MOST_FLOATS = 128, 1 << 20


class RecordEntry(NamedTuple):
    """One batch's part in a step; ``(rows, groups)``, or None where others in its chain count."""

    rows: Tensor
    before: Tensor | None
    after: Tensor | None
    limit: Tensor
    clipped: Tensor


class FleetRecorder:
    """The records of `runs` runs, reduced from many steps at once."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self._done: list[Tensor] = []  # (steps, runs, columns)
        self._waiting: list[tuple[list[RecordEntry], Tensor, Tensor]] = []
        self._most = _MOST_STEPS

    def add(self, entries: list[RecordEntry], finite: Tensor, skipped: Tensor) -> None:
        """Note one step; `finite` and `skipped` are bool ``(runs, 1)``."""
        if not self._waiting:
            floats = sum(t.numel() for entry in entries for t in entry if t is not None)
            self._most = max(1, min(_MOST_STEPS, _MOST_FLOATS // max(floats, 1)))
        self._waiting.append((entries, finite, skipped))
        if len(self._waiting) >= self._most:
            self._reduce()

    def records(self) -> list[Record]:
        """Each run's record so far."""
        rows = self._all()
        made = [Record() for _ in range(self.runs)]
        for run, record in enumerate(made):
            record.load_state_dict({"rows": rows[:, run]})
        return made

    def pick(self, runs: list[int]) -> FleetRecorder:
        """The ledger of these runs alone."""
        made = FleetRecorder(len(runs))
        if len(rows := self._all()):
            made._done = [rows[:, runs].contiguous()]
        return made

    def _all(self) -> Tensor:
        self._reduce()
        if len(self._done) > 1:
            self._done = [torch.cat([rows.to(self._done[-1].device) for rows in self._done])]
        if self._done:
            return self._done[0].cpu()
        return torch.zeros((0, self.runs, len(COLUMNS)), dtype=torch.float32)

    def _reduce(self) -> None:
        if self._waiting:
            steps, finite, skipped = zip(*self._waiting, strict=True)
            self._done.append(record_rows(steps, torch.stack(finite), torch.stack(skipped)))
            self._waiting = []


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
    alone = torch.where(groups == 1, limit, math.nan)
    share = clipped / groups
    before, after = (_l2(steps, column, zeros, dtype) for column in (1, 2))
    flags_of_runs = (each.view(count, runs).to(exact) for each in (finite, skipped))
    columns = (before, after, alone, share, *flags_of_runs)
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
    top = zeros.clone()
    for rows, norms in found:
        top[:, rows] = torch.maximum(top[:, rows], norms.amax(dim=2))
    safe = torch.where((top > 0) & torch.isfinite(top), top, 1.0)
    for rows, norms in found:
        squares.index_add_(1, rows, (norms / safe[:, rows].unsqueeze(2)).square().sum(dim=2))
    return safe * squares.sqrt()
