"""What one call of ``clipper.step()`` saw and did."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gclip.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One strategy's part in a step: its groups' norms and what it decided."""

    strategy: str
    labels: tuple[str, ...]
    norm: Tensor
    limit: Tensor
    clipped_norm: Tensor
    clipped: Tensor


class ClipReport:
    """Tensors on the gradients' device; reading one in Python (``float``, ``if``) waits for it.

    With several strategies (patterns, a chain) the groups of all follow one another, in the
    order of `groups`; `stages` has them apart.

    >>> import torch, gclip
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> report = gclip.Clipper([weight], "norm(max_norm=1)").step()
    >>> report.norm, report.limit, report.clipped_norm, report.clipped
    (tensor([5.]), tensor([1.]), tensor([1.]), tensor([True]))

    Attributes:
        finite: bool ``(1,)``: whether every gradient was finite.
        skipped: bool ``(1,)``: whether the step is to be left out, because its gradients were
            not finite (under ``nonfinite="skip"``) or a strategy's rule is ``skip``. They are
            zero then, which is not the same: momentum and weight decay would move the weights, so
            ask before ``optimizer.step()``: ``if not clipper.step().skipped: …``.
    """

    def __init__(
        self, stages: Callable[[], list[Stage]] | list[Stage] | None, finite: Tensor,
        skipped: Tensor, totals: Callable[[], tuple[Tensor, Tensor]] | None = None,
    ) -> None:  # fmt: skip
        self._stages = stages
        self._totals = totals
        self.finite = finite
        self.skipped = skipped

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Each strategy's norms and limits, in the order in which they were applied."""
        if self._stages is None:
            raise UsageError(
                "this step was not measured: with record=False and nonfinite='keep', a clamp "
                "only reads and writes each element once; make the Clipper with record=True "
                "to see norms"
            )
        return tuple(self._stages() if callable(self._stages) else self._stages)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups' names: ``all``, a layer, a parameter, or ``parameter[row]``."""
        return tuple(label for stage in self.stages for label in stage.labels)

    @property
    def norm(self) -> Tensor:
        """Each group's gradient norm before clipping, ``(groups,)``; float64 of float64 gradients.

        The norm that the strategy is about: its p-norm, or for the scope ``element`` (and for
        ``rule=clamp``) the largest absolute element. A `Record` has L2 norms instead.
        """
        return _joined([stage.norm for stage in self.stages])

    @property
    def limit(self) -> Tensor:
        """Each group's limit, ``(groups,)``; ``inf`` where nothing is ever clipped.

        As all of these, ``(0,)`` for a step without gradients.
        """
        return _joined([stage.limit for stage in self.stages])

    @property
    def clipped_norm(self) -> Tensor:
        """Each group's norm after clipping, ``(groups,)``, of the kind of `norm`."""
        return _joined([stage.clipped_norm for stage in self.stages])

    @property
    def clipped(self) -> Tensor:
        """Bool ``(groups,)``: True where the gradient was changed."""
        return _joined([stage.clipped for stage in self.stages], torch.bool)

    def scalars(self) -> dict[str, float]:
        """The step in plain numbers, for a logger; waits for the device.

        ``norm`` and ``clipped_norm``: the total gradient norm before and after clipping, as in
        the record. ``limit``: the median of the groups' limits, which is the limit where there is
        one group. ``clip_rate``: the share of the groups clipped. ``skipped``: 1 or 0. Norms and
        limit are NaN for a step without gradients.
        """
        if not self.stages:
            numbers = dict.fromkeys(("norm", "clipped_norm", "limit"), math.nan)
            return {**numbers, "clip_rate": 0.0, "skipped": float(bool(self.skipped))}
        before, after = (self.norm, self.clipped_norm) if self._totals is None else self._totals()
        return {
            "norm": _total(before),
            "clipped_norm": _total(after),
            "limit": float(self.limit.double().nanmedian()),
            "clip_rate": float(self.clipped.double().mean()),
            "skipped": float(bool(self.skipped)),
        }

    def __repr__(self) -> str:
        if self._stages is None:
            return "ClipReport(not measured)"
        if not self.stages:
            return "ClipReport(no gradients)"
        state = "" if bool(self.finite) else ", not finite"
        share = self.clipped.float().mean().item()
        return (
            f"ClipReport({len(self.groups)} groups, {share:.0%} clipped, "
            f"norm {_span(self.norm)}, limit {_span(self.limit)}{state})"
        )


def clipped_or_skipped(report: ClipReport | None) -> bool:
    """Whether a call changed anything: it clipped something, or its step is to be left out."""
    if report is None:
        return False
    return bool(report.skipped) or any(bool(stage.clipped.any()) for stage in report.stages)


def _total(norms: Tensor) -> float:
    return float(torch.linalg.vector_norm(norms.double()))


def _joined(parts: list[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    if not parts:
        return torch.zeros(0, dtype=dtype)
    return parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts])


def _span(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if low == high else f"{low:.4g}…{high:.4g}"
