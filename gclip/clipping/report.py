"""What one call of ``clipper.step()`` saw and did."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gclip.clipping.nonfinite import NonfiniteGradients, named
from gclip.core.host import on_host
from gclip.errors import UsageError

NUMBERS = ("norm", "clipped_norm", "limit", "clip_rate", "skipped")
"""What `ClipReport.numbers` and `ClipReport.scalars` hold, in order."""


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
        nonfinite: NonfiniteGradients | None = None,
    ) -> None:  # fmt: skip
        self._stages = stages
        self._totals = totals
        self._nonfinite = nonfinite
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

    @property
    def not_finite(self) -> tuple[str, ...]:
        """The parameters whose gradients were inf or NaN, in the model's order.

        >>> import torch, gclip
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([0.0, float("nan")])
        >>> gclip.Clipper([("head.weight", weight)], "norm").step().not_finite
        ('head.weight',)
        """
        return () if self._nonfinite is None else self._nonfinite.parameters

    def scalars(self) -> dict[str, float]:
        """The step in plain numbers, for a logger; waits for the device.

        ``norm`` and ``clipped_norm``: the total gradient norm before and after clipping, as in
        the record. ``limit``: the median of the groups' limits, which is the limit where there is
        one group. ``clip_rate``: the share of the groups clipped. ``skipped``: 1 or 0. Norms and
        limit are NaN for a step without gradients.
        """
        return dict(zip(NUMBERS, self.numbers().tolist(), strict=True))

    def numbers(self) -> Tensor:
        """The `scalars`, ``(5,)``, on the device and without waiting for it: see `NUMBERS`.

        float64, but float32 where the device has no other.
        """
        if not self.stages:
            left_out = float(bool(self.skipped))
            return torch.tensor([*[math.nan] * 3, 0.0, left_out], dtype=torch.float64)
        before, after = (self.norm, self.clipped_norm) if self._totals is None else self._totals()
        wide = torch.float32 if before.device.type == "mps" else torch.float64
        device = before.device
        if on_host(self.skipped):  # a number, which need not be sent to a device
            skip = torch.full((), float(bool(self.skipped)), dtype=wide, device=device)
        else:
            skip = self.skipped.view(()).to(device, wide)
        return torch.stack(
            [
                torch.linalg.vector_norm(before.to(wide)),
                torch.linalg.vector_norm(after.to(device, wide)),
                _median(self.limit.to(device, wide)),
                self.clipped.to(device, wide).mean(),
                skip,
            ]
        )

    def __repr__(self) -> str:
        if self._stages is None:
            return "ClipReport(not measured)"
        if not self.stages:
            return "ClipReport(no gradients)"
        where = named(self.not_finite)
        state = "" if bool(self.finite) else f", not finite{f' in {where}' if where else ''}"
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


def _median(values: Tensor) -> Tensor:
    """As ``nanmedian()``, which on a GPU waits for a count."""
    if values.numel() == 1:
        return values.view(())
    values = values.flatten().sort().values  # NaN comes last
    place = (values.numel() - 1 - values.isnan().sum()).clamp(min=0) // 2
    return values.gather(0, place.view(1)).view(())


def _joined(parts: list[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    if not parts:
        return torch.zeros(0, dtype=dtype)
    return parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts])


def _span(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if low == high else f"{low:.4g}…{high:.4g}"
