"""The per-example side: clip each training example's gradient, then take the mean.

A strategy sees the norms of single examples' gradients as ``(examples, groups)``: each example is
a row, as if it were a run of its own.

Abadi et al. (2016), Deep Learning with Differential Privacy, arXiv:1607.00133. No noise is added
here: per-example clipping alone is not private.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from gclip.clipping.per_sample.bound_strategy import BoundSampleStrategy
from gclip.clipping.per_sample.checks import Loss, chunks
from gclip.clipping.per_sample.gradients import Gradients, PerSample
from gclip.clipping.rules import Decision
from gclip.core.host import on_host
from gclip.errors import UsageError


class _Made(NamedTuple):
    """What a part decided on some examples, and which of its parameters had gradients."""

    decision: Decision
    there: tuple[bool, ...]


class PerSampleClipper:
    """The parts of a clipper that work on single examples, and the sums of a step so far.

    Gradients of single examples are only read: two parameters may have one tensor as theirs, and
    examples may share memory.
    """

    def __init__(self, parts: list[BoundSampleStrategy], model: nn.Module, recording: bool) -> None:
        _refuse_wrapped(parts, model)
        self.parts, self.model, self._recording = parts, model, recording
        self._computed = PerSample(model, stacklevel=4)
        self._step = 0
        self._plain: dict[str, Tensor] = {}  # mean gradients by name, as the record adds them up
        self._clipped: dict[str, Tensor] = {}
        self._made: list[list[_Made]] = []  # for each chunk, for each part

    @property
    def waiting(self) -> bool:
        """Whether there are gradients that `settle` has not taken yet."""
        return bool(self._made)

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

        Returns:
            The mean loss times `scale`.
        """
        places = chunks(inputs, targets, chunk)
        named = dict(self.model.named_parameters())
        names = [self._names(part, named) for part in self.parts]
        if self._made and all(p.grad is None for p in named.values()):
            self.drop()  # the loop has thrown away what it had accumulated
        weight = scale / len(inputs)
        plain: dict[str, Tensor] = {}
        clipped: dict[str, Tensor] = {}
        made: list[list[_Made]] = []
        losses: list[Tensor] = []
        for few in places:
            found = self._computed(inputs[few], targets[few], loss)
            losses.append(found.losses)
            with torch.no_grad():
                made.append([])
                for part, own in zip(self.parts, names, strict=True):
                    made[-1].append(self._clip(part, own, found, step, weight, plain, clipped))
                for name in found.each.keys() - {name for own in names for name in own}:
                    each = found.each[name]  # not clipped by example
                    _add(clipped, name, each.sum(dim=0, dtype=_wide(each)) * weight)
        with torch.no_grad():
            for name, share in clipped.items():
                param, mine = named[name], share.to(named[name].dtype)
                param.grad = mine if param.grad is None else param.grad + mine
                _add(self._clipped, name, share)
            for name, share in plain.items():
                _add(self._plain, name, share)
        self._step = step
        self._made += made
        every = torch.cat(losses)
        return every.to(_wide(every)).mean() * scale

    def settle(self, finite: Tensor) -> None:
        """The step is complete: each part has in `made` what was done, and learns from it.

        Args:
            finite: whether the step's gradients are, bool ``(1,)``.
        """
        for place, part in enumerate(self.parts):
            made = [each[place] for each in self._made]
            decisions = [each.decision for each in made]
            part.made = decisions[0]._replace(
                norm=torch.cat([d.norm for d in decisions]),
                limit=torch.cat([d.limit for d in decisions]),
                factor=torch.cat([d.factor for d in decisions]),
                clipped_norm=torch.cat([d.clipped_norm for d in decisions]),
                clipped=torch.cat([d.clipped for d in decisions]),
            )
            there = [any(flags) for flags in zip(*(each.there for each in made), strict=True)]
            part.learn_examples(self._step, there, finite)
            if self._recording:
                names = self._names(part, dict(self.model.named_parameters()))
                part.total_before = _norms(self._plain, names, finite.device)
                part.total_after = _norms(self._clipped, names, finite.device)
        self.drop()

    def drop(self) -> None:
        """Forget the step's sums."""
        self._plain, self._clipped, self._made = {}, {}, []

    def _names(self, part: BoundSampleStrategy, named: dict[str, nn.Parameter]) -> list[str]:
        """What the model calls the parameters of a part."""
        known = {id(param): name for name, param in named.items()}
        pairs = zip(part.groups.names, part.params, strict=True)
        gone = [name for name, param in pairs if id(param) not in known]
        if gone:
            raise UsageError(
                f"{', '.join(gone[:3])} of this clipper and the model's parameters of today are "
                "not the same tensors: make a new Clipper after replacing parts of a model"
            )
        return [known[id(param)] for param in part.params]

    def _clip(
        self,
        part: BoundSampleStrategy,
        names: list[str],
        found: Gradients,
        step: int,
        weight: float,
        plain: dict[str, Tensor],
        clipped: dict[str, Tensor],
    ) -> _Made:
        """Decide on the examples of one part, and add up what is left of them."""
        each = [found.each.get(name) for name in names]
        there = tuple(tensor is not None for tensor in each)
        norm = part.measure_examples(each, found.losses)
        made = part.ask_examples(norm, step)
        changes = not made.idle
        if self._recording or not changes:
            sums = part.groups.batched_sums(each, torch.full_like(norm, weight))
            _add_all(plain, names, sums)
        if changes:
            doubtful = not on_host(norm) or not bool(torch.isfinite(norm).all())
            if made.skip is not None and doubtful:  # a factor of 0 would leave NaN behind
                each = [None if t is None else _without(t, made.skip) for t in each]
            sums = part.groups.batched_sums(each, made.factor * weight, exact=doubtful)
        _add_all(clipped, names, sums)
        return _Made(made, there)


def _add_all(sums: dict[str, Tensor], names: list[str], more: list[Tensor | None]) -> None:
    for name, share in zip(names, more, strict=True):
        if share is not None:
            _add(sums, name, share)


def _add(sums: dict[str, Tensor], name: str, share: Tensor) -> None:
    sums[name] = sums[name] + share if name in sums else share


def _without(tensor: Tensor, skip: Tensor) -> Tensor:
    """The gradients with zeros for examples that are skipped, bool ``(examples, 1)``."""
    mask = skip.to(tensor.device).view(-1, *[1] * (tensor.ndim - 1))
    return tensor.masked_fill(mask, 0.0)


def _wide(tensor: Tensor) -> torch.dtype:
    """The dtype to sum in."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _norms(sums: dict[str, Tensor], names: list[str], device: torch.device) -> Tensor:
    """The L2 norms of mean gradients, ``(parameters,)`` float32; 0 where there is none."""
    found = []
    for name in names:
        total = sums.get(name)
        if total is None:
            found.append(torch.zeros((), dtype=torch.float32, device=device))
            continue
        # In float64, whose squares do not overflow; Macs' GPUs have none.
        wide = total if total.device.type == "mps" else total.to(_double(total))
        found.append(torch.linalg.vector_norm(wide).float().to(device))
    return torch.stack(found)


def _double(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float64)


def _refuse_wrapped(parts: list[BoundSampleStrategy], model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, DataParallel | DistributedDataParallel):
            raise UsageError(
                f"{parts[0].strategy} clips single examples, whose gradients "
                f"{name or 'the model'} ({type(module).__name__}) does not average between "
                "processes: pass the module inside (model.module), and average .grad yourself "
                "before clipper.step()"
            )
