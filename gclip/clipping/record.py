"""The record of what clipping did over a run, and what that makes of it.

"Threshold 1" is a safety net in one run and a limiter of every step in the next, and the loss
curve does not say which. The record does. Each step leaves six numbers (24 bytes); they are
computed in batches from the tensors of many steps, so that recording waits for no device and
costs next to nothing per step.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gclip.clipping.nonfinite import FirstNonfinite, NonfiniteGradients, NonfiniteLog
from gclip.clipping.verdicts import LIMITED, MOSTLY_NOT_FINITE, MOSTLY_SKIPPED, verdict_of
from gclip.core.scaling import divisor

Array = npt.NDArray[np.float32 | np.float64]

COLUMNS = ("norm", "clipped_norm", "limit", "clipped", "finite", "skipped")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PENDING_FLOATS = 1 << 20  # how many floats may wait before they are reduced


@dataclass(frozen=True)
class ClipSummary:
    """What clipping did over a run.

    Attributes:
        steps: how many steps were recorded.
        clip_rate: share of steps in which anything was clipped.
        group_rate: mean share of the groups clipped in a step.
        limited_rate: share of steps whose total norm shrank by more than 1 %; the verdict's number.
        skipped: steps that were left out, by a strategy's rule or because their gradients were
            not finite.
        not_finite: steps whose gradients were not finite.
        norm_quantiles: quantiles of the total gradient norm before clipping.
        verdict: ``never clips`` (nothing was ever clipped) · ``safety net`` (at most one step in
            ten limited) · ``step-size limiter`` · ``always on`` (99 % of steps or more limited) ·
            ``mostly skipped`` (more than half of the steps left out) · ``mostly not finite``
            (more than half not finite, and not left out).
        first_not_finite: the first step with gradients that were not finite, and whose they were;
            None where all were finite.

    The rates and the quantiles are of the steps with finite gradients.
    """

    steps: int
    clip_rate: float
    group_rate: float
    limited_rate: float
    skipped: int
    not_finite: int
    norm_quantiles: dict[float, float]
    verdict: str
    first_not_finite: FirstNonfinite | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain numbers and text, for JSON; where all was finite, without
        `first_not_finite`."""
        plain = dataclasses.asdict(self)
        if self.first_not_finite is None:
            del plain["first_not_finite"]
        else:
            plain["first_not_finite"] = self.first_not_finite.as_dict()
        plain["norm_quantiles"] = {f"{q:g}": v for q, v in self.norm_quantiles.items()}
        return plain

    def __str__(self) -> str:
        text = (
            f"{self.verdict}: {self.clip_rate:.1%} of {self.steps:,} steps clipped, "
            f"{self.limited_rate:.1%} shrunk by more than 1 %; "
            f"median gradient norm {self.norm_quantiles[0.5]:.3g}"
        )
        if self.verdict in (MOSTLY_SKIPPED, MOSTLY_NOT_FINITE):
            text = f"{self.verdict}: of {self.steps:,} steps"
        for count, what in ((self.skipped, "skipped"), (self.not_finite, "not finite")):
            text += f"; {count:,} {what}" if count else ""
        if self.first_not_finite is not None:
            text += f"{',' if self.not_finite else '; not finite'} {self.first_not_finite}"
        return text.replace("steps; ", "steps ", 1)


class Record:
    """One row a step; see `arrays` for the columns and `summary` for the verdict.

    >>> import torch, gclip
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> clipper = gclip.Clipper([weight], "norm(max_norm=1)")
    >>> for size in (0.5, 4.0):
    ...     weight.grad = torch.tensor([0.0, size])
    ...     report = clipper.step()
    >>> clipper.record.arrays()["norm"].tolist()
    [0.5, 4.0]
    >>> clipper.record.summary().verdict
    'step-size limiter'
    """

    def __init__(self) -> None:
        self._done: list[Tensor] = []  # on the gradients' device until somebody looks
        self._pending: list[tuple[Tensor, ...]] = []
        self._batch = 1
        self._steps = 0
        self._nonfinite = NonfiniteLog()

    def __len__(self) -> int:
        return self._steps

    def add(
        self,
        norm: Tensor,
        clipped_norm: Tensor,
        limit: Tensor,
        clipped: Tensor,
        finite: Tensor,
        skipped: Tensor,
        nonfinite: NonfiniteGradients | None = None,
    ) -> None:
        """Note one step; kept as it is for now.

        All are ``(groups,)``, `finite` and `skipped` ``(1,)``.

        Args:
            norm: L2 norms before, ``(groups,)``.
            clipped_norm: and after.
            limit: as the strategies set it.
            clipped: bool, which groups changed.
            finite: bool ``(1,)``, whether all gradients were.
            skipped: bool ``(1,)``, whether the step was left out.
            nonfinite: whose gradients were not finite, where any may not be.
        """
        self._nonfinite.note(self._steps, finite, nonfinite)
        self._steps += 1
        row = (norm, clipped_norm, limit, clipped, finite, skipped)
        if self._pending and not _stackable(row, self._pending[-1]):
            self.flush()  # the model has moved, or norms are of other groups
        if not self._pending:
            floats = sum(t.numel() for t in row)
            self._batch = max(1, min(128, _PENDING_FLOATS // max(floats, 1)))
        self._pending.append(row)
        if len(self._pending) >= self._batch:
            self.flush()

    def arrays(self) -> dict[str, Array]:
        """One entry a step for each column, float32 (float64 where gradients are).

        ``norm`` and ``clipped_norm``: the total L2 norm before and after clipping, whatever norm
        the strategy is about.
        ``limit``: the limit where there is one group, else NaN. ``clipped``: the share of the
        groups clipped. ``finite`` and ``skipped``: 1 or 0.
        """
        self.flush()
        if len(self._done) > 1:
            self._done = [torch.cat([rows.to(self._done[-1].device) for rows in self._done])]
        blank: Array = np.zeros((0, len(COLUMNS)), np.float32)
        rows: Array = self._done[0].cpu().numpy() if self._done else blank
        return {name: rows[:, i] for i, name in enumerate(COLUMNS)}

    def last(self, steps: int) -> Tensor:
        """The latest `steps` rows (fewer where there are not as many), ``(rows, 6)``.

        They stay on the device, and nothing waits for it.
        """
        self.flush()
        found: list[Tensor] = []
        left = steps
        for rows in reversed(self._done):
            if left <= 0:
                break
            found.insert(0, rows[-left:])
            left -= len(rows)
        if not found:
            return torch.zeros(0, len(COLUMNS))
        kind = found[-1]
        return torch.cat([rows.to(kind.device, kind.dtype) for rows in found])

    @property
    def first_not_finite(self) -> FirstNonfinite | None:
        """The first step with gradients that were not finite; None where all were finite."""
        return self._first_of(self.arrays()["finite"])

    def _first_of(self, finite: Array) -> FirstNonfinite | None:
        bad = np.flatnonzero(finite == 0)
        found = self._nonfinite.first()
        if len(bad) and (found is None or bad[0] < found.step):  # of before the record was loaded
            return FirstNonfinite(int(bad[0]))
        return found

    def first(self, steps: int) -> Record:
        """The record of the first `steps` steps alone.

        Of the step after them, at which a run may have ended, it knows where gradients were not
        finite.
        """
        record, found = Record(), self.first_not_finite
        record.load_state_dict({"rows": self.state_dict()["rows"][:steps]})
        record.locate(found if found is not None and found.step <= steps else None)
        return record

    def location(self) -> dict[str, Any]:
        """Where gradients were not finite first, as `first_not_finite`; nothing where all were
        finite. For checkpoints, beside `state_dict`, which has the numbers alone."""
        found = self.first_not_finite
        return {} if found is None else {"first_not_finite": found.as_dict()}

    def locate(self, first: FirstNonfinite | None) -> None:
        """Tell a record that was loaded, which holds numbers only, what `location` gave."""
        if first is not None:
            self._nonfinite.set_first(first)

    def summary(self) -> ClipSummary:
        """Clip rates, norm quantiles and the verdict over all steps so far."""
        rows = self.arrays()
        steps = len(rows["norm"])
        finite = rows["finite"] > 0
        norm, after, share = (rows[c][finite] for c in ("norm", "clipped_norm", "clipped"))
        skipped, not_finite = int((rows["skipped"] > 0).sum()), int(steps - finite.sum())
        limited_rate = float(np.mean(after < LIMITED * norm)) if len(norm) else 0.0
        clip_rate = float(np.mean(share > 0)) if len(norm) else 0.0
        return ClipSummary(
            steps=steps,
            clip_rate=clip_rate,
            group_rate=float(np.mean(share, dtype=np.float64)) if len(norm) else 0.0,
            limited_rate=limited_rate,
            skipped=skipped,
            not_finite=not_finite,
            norm_quantiles={
                q: float(np.quantile(norm, q)) if len(norm) else math.nan for q in QUANTILES
            },
            verdict=verdict_of(
                clip_rate=clip_rate,
                limited_rate=limited_rate,
                skipped=skipped / max(steps, 1),
                not_finite=not_finite / max(steps, 1),
            ),
            first_not_finite=self._first_of(rows["finite"]),
        )

    def state_dict(self) -> dict[str, Any]:
        """All rows, ``(steps, columns)``; loads with ``torch.load(weights_only=True)``."""
        arrays = self.arrays()
        rows = np.stack([arrays[c] for c in COLUMNS], axis=1)
        return {"rows": torch.from_numpy(rows.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another record stopped; its own rows are dropped."""
        self._done, self._pending = [_with_skips(state["rows"])], []
        self._steps, self._nonfinite = len(self._done[0]), NonfiniteLog()

    def flush(self) -> None:
        """Turn the steps that wait into rows, all at once; needed where other groups follow."""
        if not self._pending:
            return
        norm, after, limit, clipped, finite, skipped = (
            torch.stack(column) for column in zip(*self._pending, strict=True)
        )
        none = limit.new_full((len(limit),), math.nan)
        rows = torch.stack(
            [
                _l2(norm),
                _l2(after),
                limit[:, 0] if limit.shape[1] == 1 else none,
                clipped.to(norm.dtype).mean(dim=1),
                finite[:, 0].to(norm.dtype),
                skipped[:, 0].to(norm.dtype),
            ],
            dim=1,
        )
        self._done.append(rows)
        self._pending = []


def _stackable(row: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    """Whether two rows have the same device, and as many norms."""
    norm, before = row[0], other[0]
    return norm.device == before.device and norm.shape == before.shape


def _l2(norms: Tensor) -> Tensor:
    """The norm of all groups, step by step."""
    if norms.dtype == torch.float32:  # whose squares fit into float64
        wide = norms if norms.device.type == "mps" else norms.double()
        norm: Tensor = torch.linalg.vector_norm(wide, dim=1)
        return norm.float()
    # Relative to the largest, whose square may be more (or less) than float64 holds.
    top = norms.amax(dim=1, keepdim=True)
    safe = divisor(top)
    total: Tensor = torch.linalg.vector_norm(norms / safe, dim=1)
    return total * safe[:, 0]


def _with_skips(rows: Tensor) -> Tensor:
    """A copy, in which rows from before skips were noted count as skipped where not finite."""
    if rows.shape[1] == len(COLUMNS):
        return rows.clone()
    return torch.cat([rows, 1 - rows[:, -1:]], dim=1)
