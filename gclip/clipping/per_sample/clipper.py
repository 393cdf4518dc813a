"""The per-example side: clip each training example's gradient, then take the mean.

A strategy sees the norms of single examples' gradients as ``(examples, groups)``: each example is
a row, as if it were a run of its own.

Abadi et al. (2016), Deep Learning with Differential Privacy, arXiv:1607.00133. No noise is added
here: per-example clipping alone is not private.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from gclip.clipping.per_sample.bound_strategy import BoundSampleStrategy
from gclip.clipping.per_sample.checks import Loss, chunks, per_sample_model
from gclip.clipping.per_sample.gradients import ExampleGradients, PerSampleGradients
from gclip.clipping.per_sample.group_sums import weighted_sums
from gclip.clipping.rules import Decision
from gclip.core.host import on_host
from gclip.errors import UsageError

_Sums: TypeAlias = list[Tensor | None]


class _ChunkDecision(NamedTuple):
    """What was decided on some examples, and which of the parameters had gradients."""

    decision: Decision
    present: tuple[bool, ...]


class PerSampleClipper:
    """The strategies of a clipper that work on single examples, and the sums of a step so far.

    Gradients of single examples are only read: two parameters may have one tensor as theirs, and
    examples may share memory.

    Args:
        parts: the strategies.
        model: whose examples they are.
        recording: whether the norms of mean gradients are wanted.

    Raises:
        UsageError: a model that is none, or whose examples' gradients cannot be had.
    """

    def __init__(self, parts: list[BoundSampleStrategy], model: object, recording: bool) -> None:
        params = [param for part in parts for param in part.params]
        self.model = per_sample_model(str(parts[0].strategy), model, params)
        self.parts, self._recording = parts, recording
        self._compute = PerSampleGradients(self.model, stacklevel=4)
        self._step = 0
        self._unclipped: dict[str, Tensor] = {}  # mean gradients by name, for the record
        self._clipped: dict[str, Tensor] = {}
        self._chunks: list[list[_ChunkDecision]] = []  # for each chunk, for each strategy

    @property
    def waiting(self) -> bool:
        """Whether there are gradients that `settle` has not taken yet."""
        return bool(self._chunks)

    def add(
        self,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
        *,
        step: int,
        scale: float,
        chunk: int | None,
    ) -> Tensor:
        """Clip the examples of a batch; add their mean, times `scale`, to ``.grad``.

        Args:
            inputs: as `gclip.Clipper.backward`, like all of the others.
            targets: one an example.
            loss: of a batch of one.
            step: how many steps came before this one.
            scale: what the mean is multiplied by.
            chunk: how many examples are computed at once; None: all.

        Returns:
            The mean loss times `scale`.
        """
        slices = chunks(inputs, targets, chunk)
        named = dict(self.model.named_parameters())
        names = [self._names(part, named) for part in self.parts]
        if self._chunks and all(p.grad is None for p in named.values()):
            self.drop()  # the loop has thrown away what it had accumulated
        weight = scale / len(inputs)
        unclipped: dict[str, Tensor] = {}
        clipped: dict[str, Tensor] = {}
        decisions: list[list[_ChunkDecision]] = []
        losses: list[Tensor] = []
        for examples in slices:
            computed = self._compute(inputs[examples], targets[examples], loss)
            losses.append(computed.losses)
            with torch.no_grad():
                decisions.append([])
                for part, own in zip(self.parts, names, strict=True):
                    decision, before, after = self._clip(part, own, computed, step, weight)
                    decisions[-1].append(decision)
                    _add_all(unclipped, own, before)
                    _add_all(clipped, own, after)
                for name in computed.grads.keys() - {name for own in names for name in own}:
                    grad = computed.grads[name]  # not clipped by example
                    _add(clipped, name, grad.sum(dim=0, dtype=_sum_dtype(grad)) * weight)
        with torch.no_grad():
            for name, total in clipped.items():
                param, share = named[name], total.to(named[name].dtype)
                param.grad = share if param.grad is None else param.grad + share
                _add(self._clipped, name, total)
            for name, total in unclipped.items():
                _add(self._unclipped, name, total)
        self._step = step
        self._chunks += decisions
        every = torch.cat(losses)
        return every.to(_sum_dtype(every)).mean() * scale

    def settle(self, finite: Tensor) -> None:
        """The step is complete: each strategy learns from all of its examples.

        Args:
            finite: whether the step's gradients are, bool ``(1,)``.
        """
        for part, chunked in zip(self.parts, zip(*self._chunks, strict=True), strict=True):
            decisions = [each.decision for each in chunked]
            decision = decisions[0]._replace(
                norm=torch.cat([d.norm for d in decisions]),
                limit=torch.cat([d.limit for d in decisions]),
                factor=torch.cat([d.factor for d in decisions]),
                clipped_norm=torch.cat([d.clipped_norm for d in decisions]),
                clipped=torch.cat([d.clipped for d in decisions]),
            )
            present = [any(flags) for flags in zip(*(c.present for c in chunked), strict=True)]
            part.learn_examples(self._step, decision, present, finite)
            if self._recording:
                names = self._names(part, dict(self.model.named_parameters()))
                part.note_totals(
                    _l2_norms(self._unclipped, names, finite.device),
                    _l2_norms(self._clipped, names, finite.device),
                )
        self.drop()

    def drop(self) -> None:
        """Forget the step's sums."""
        self._unclipped, self._clipped, self._chunks = {}, {}, []

    def _names(self, part: BoundSampleStrategy, named: dict[str, nn.Parameter]) -> list[str]:
        """What the model calls the parameters of a strategy."""
        known = {id(param): name for name, param in named.items()}
        pairs = zip(part.groups.names, part.params, strict=True)
        missing = [name for name, param in pairs if id(param) not in known]
        if missing:
            raise UsageError(
                f"{', '.join(missing[:3])} of this clipper and the model's parameters of today are "
                "not the same tensors: make a new Clipper after replacing parts of a model"
            )
        return [known[id(param)] for param in part.params]

    def _clip(
        self,
        part: BoundSampleStrategy,
        names: list[str],
        computed: ExampleGradients,
        step: int,
        weight: float,
    ) -> tuple[_ChunkDecision, _Sums, _Sums]:
        """Decide on the examples; what is summed of them before clipping (if wanted) and after."""
        grads = [computed.grads.get(name) for name in names]
        present = tuple(grad is not None for grad in grads)
        norm = part.measure_examples(grads, computed.losses)
        decision = part.ask_examples(norm, step)
        changes = not decision.idle
        before: _Sums = []
        if self._recording or not changes:
            before = weighted_sums(part.groups, grads, torch.full_like(norm, weight))
        after = before
        if changes:
            doubtful = not on_host(norm) or not bool(torch.isfinite(norm).all())
            if decision.skip is not None and doubtful:  # a factor of 0 would leave NaN behind
                grads = [None if g is None else _without(g, decision.skip) for g in grads]
            factors = decision.factor * weight
            after = weighted_sums(part.groups, grads, factors, exact=doubtful)
        return _ChunkDecision(decision, present), before, after


def _add_all(sums: dict[str, Tensor], names: list[str], shares: _Sums) -> None:
    for name, share in zip(names, shares, strict=False):  # shares may not be wanted at all
        if share is not None:
            _add(sums, name, share)


def _add(sums: dict[str, Tensor], name: str, share: Tensor) -> None:
    sums[name] = sums[name] + share if name in sums else share


def _without(tensor: Tensor, skip: Tensor) -> Tensor:
    """The gradients with zeros for examples that are skipped, bool ``(examples, 1)``."""
    mask = skip.to(tensor.device).view(-1, *[1] * (tensor.ndim - 1))
    return tensor.masked_fill(mask, 0.0)


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _l2_norms(sums: dict[str, Tensor], names: list[str], device: torch.device) -> Tensor:
    """The L2 norms of mean gradients, ``(parameters,)`` float32; 0 where there is none."""
    norms = []
    for name in names:
        total = sums.get(name)
        if total is None:
            norms.append(torch.zeros((), dtype=torch.float32, device=device))
            continue
        if total.device.type != "mps":  # Macs' GPUs have no float64, whose squares do not overflow
            total = total.to(torch.promote_types(total.dtype, torch.float64))
        norms.append(torch.linalg.vector_norm(total).float().to(device))
    return torch.stack(norms)
