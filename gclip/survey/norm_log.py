"""Norms of many steps, kept in bounded memory: what a survey remembers of a training run.

A `NormLog` holds the norms of one scope, one row a step. Where there would be too many rows, or too
many numbers, it keeps every second of them, then every fourth, and so on, evenly over the run.
Nothing waits for a GPU until somebody reads the log.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gclip.clipping.dtensor import local
from gclip.clipping.groups import Groups
from gclip.clipping.hyperparameters import OptimizerHyperparameters
from gclip.core.seen import Rate

MOST_STEPS = 512  # rows of a log; one that has been thinned has at least half as many
FEWEST_STEPS = 16  # not thinned further, however large the rows are
BINS = 49  # quarters of an octave below a tensor's largest element, and one for all that is smaller
PER_OCTAVE = 4
_SAMPLE = 1 << 16  # elements of a tensor that are counted, evenly spaced


@dataclass(frozen=True)
class Step:
    """What all logs share of a step.

    `present` is None where every parameter had a gradient, `trained` where none was frozen.
    """

    index: int
    finite: Tensor
    present: tuple[bool, ...] | None
    rates: Mapping[str, list[Rate]] | None
    trained: tuple[bool, ...] | None = None


class Magnitudes(NamedTuple):
    """How large a step's elements are: a histogram for each tensor.

    Bin b counts those between 2^(−(b+1)/4) and 2^(−b/4) of the largest, the last all smaller ones.

    Attributes:
        largest: the largest element, ``(…, tensors)``.
        counts: how many elements there are, ``(…, tensors, BINS)``.
        squares: the sum of their squares, in units of the largest one's square.
    """

    largest: Tensor
    counts: Tensor
    squares: Tensor

    @classmethod
    def of(cls, tensors: Sequence[Tensor | None], largest: Tensor) -> Magnitudes:
        """Of the tensors of a step, whose largest elements are known."""
        counts = largest.new_zeros(len(tensors), BINS)
        squares = torch.zeros_like(counts)
        for index, tensor in enumerate(tensors):
            if tensor is None or not tensor.numel():
                continue
            flat, top = tensor.detach().reshape(-1), largest[index]
            stride = -(-flat.numel() // _SAMPLE) | 1  # odd, not to stay in one column of a matrix
            sample = flat[::stride]
            share = (sample.abs().to(top) / top).nan_to_num(0.0, 0.0).clamp(max=1.0)
            bins = share.log2().mul(-PER_OCTAVE).clamp(max=BINS - 1).long()
            ones = torch.full_like(share, flat.numel() / sample.numel())
            counts[index].scatter_add_(0, bins, ones)
            squares[index].scatter_add_(0, bins, share.square() * ones)
        return cls(largest, counts, squares)

    def total(self) -> Tensor:
        """The L2 norm of all elements together, ``(…)`` float64."""
        return self._norm(self.squares.double().sum(dim=-1))

    def clamped(self, limit: Tensor) -> Tensor:
        """The same after each element was cut at ``±limit``, ``(…, tensors)``: an estimate.

        Only the bin that the limit falls into is estimated; there elements are taken to be spread
        evenly on a logarithmic scale. The largest element is known by itself.
        """
        counts, squares = self.counts.double(), self.squares.double()
        counts[..., 0] = (counts[..., 0] - 1).clamp(min=0.0)
        squares[..., 0] = (squares[..., 0] - 1).clamp(min=0.0)
        bins = torch.arange(BINS, dtype=torch.float64)
        high = torch.exp2(-bins / PER_OCTAVE)
        low = torch.exp2(-(bins + 1) / PER_OCTAVE)
        low[-1] = 0.0
        # In units of the largest element; a tensor of zeros has nothing to cut.
        cut = (limit.double() / self.largest.double()).nan_to_num(1.0).unsqueeze(-1)
        least = torch.minimum(squares, counts * cut.square())  # exact if all are alike
        span = torch.log(high / cut.clamp(min=1e-300)).clamp(min=1e-12)
        mean = (high.square() - cut.square()) / (2 * span)  # square of those above the cut
        lost = counts * (span * PER_OCTAVE / math.log(2)) * (mean - cut.square())
        spread = torch.minimum(squares - lost, least).clamp(min=0.0)
        inside = (cut > low) & (low > 0) & (counts > 1.5)
        left = torch.where(cut >= high, squares, torch.where(inside, spread, least))
        return self._norm(left.sum(dim=-1) + cut.squeeze(-1).clamp(max=1.0).square())

    def _norm(self, squares: Tensor) -> Tensor:
        return (squares * self.largest.double().square()).sum(dim=-1).sqrt()


class _Row(NamedTuple):
    step: Step
    norm: Tensor
    weight_norm: Tensor
    l2: Tensor
    magnitudes: Magnitudes | None


class NormLog:
    """The norms of one scope and order, step by step.

    Args:
        elements: the groups of the same parameters in the scope ``element``: then elements are
            counted by size too, to tell what cutting them leaves.

    Attributes:
        every: how many steps there are for each that is kept.
    """

    def __init__(self, groups: Groups, order: float, *, elements: Groups | None = None) -> None:
        self.groups, self.order = groups, order
        self.every = 1
        self._elements = elements
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def floats(self) -> int:
        """How many numbers are held."""
        tensors = len(self.groups.shapes)
        norms = 2 if self._plain else 3
        row = norms * self.groups.count + (tensors * (2 * BINS + 1) if self._elements else 0)
        return row * len(self._rows)

    def wants(self, step: int) -> bool:
        """Whether the step is one of those that are kept."""
        return step % self.every == 0

    def add(
        self,
        step: Step,
        grads: Sequence[Tensor | None],
        weights: Sequence[Tensor | None],
    ) -> None:
        """Measure and keep a step."""
        device = step.finite.device
        norm = self._norms(grads, device)
        magnitudes = None
        if self._elements is not None:
            largest = self._elements.norms(grads, math.inf, device)
            shards = Magnitudes.of([None if g is None else local(g) for g in grads], largest)
            sums = map(self._elements.summed, (shards.counts, shards.squares))
            magnitudes = Magnitudes(largest, *sums)
        l2 = norm if self._plain else self.groups.measure(grads, 2.0, device)[0]
        self._rows.append(_Row(step, norm, self._norms(weights, device), l2, magnitudes))
        if len(self._rows) > MOST_STEPS:
            self.thin()

    def thin(self) -> None:
        """Keep every second of the rows."""
        self.every *= 2
        self._rows = [row for row in self._rows if self.wants(row.step.index)]

    def watched(self) -> Watched:
        """The finite steps so far, on the host."""
        rows = self._rows
        if rows:
            fine = torch.cat([row.step.finite.cpu() for row in rows]).tolist()
            rows = [row for row, finite in zip(rows, fine, strict=True) if finite]
        blank = torch.zeros(0, self.groups.count, dtype=torch.float32)
        magnitudes = [row.magnitudes for row in rows if row.magnitudes is not None]
        norm, weight_norm, l2 = (
            torch.stack([getattr(row, what) for row in rows]).cpu() if rows else blank
            for what in ("norm", "weight_norm", "l2")
        )
        return Watched(
            groups=self.groups,
            norm=norm,
            weight_norm=weight_norm,
            l2=l2,
            steps=tuple(row.step for row in rows),
            magnitudes=_stacked(magnitudes) if magnitudes else None,
            every=self.every,
        )

    @property
    def _plain(self) -> bool:
        """Whether its norms are L2 norms."""
        return self.order == 2.0

    def _norms(self, tensors: Sequence[Tensor | None], device: torch.device) -> Tensor:
        return self.groups.measure(tensors, self.order, device)[0]


def _stacked(rows: list[Magnitudes]) -> Magnitudes:
    return Magnitudes(*(torch.stack(column).cpu() for column in zip(*rows, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Watched:
    """The finite steps of a `NormLog`, on the host.

    Attributes:
        norm, weight_norm: ``(steps, groups)``, of the order watched.
        l2: the L2 norms of the same groups.
        magnitudes: ``(steps, …)`` each, where elements were counted.
        every: how many steps of the run there are for each that is here.
    """

    groups: Groups
    norm: Tensor
    weight_norm: Tensor
    l2: Tensor
    steps: tuple[Step, ...]
    magnitudes: Magnitudes | None
    every: int

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def sizes(self) -> Tensor:
        """Elements of each group, ``(groups,)``."""
        trained = self.steps[-1].trained if self.steps else None
        return self.groups.sizes(self.norm.device, trained, dtype=self.norm.dtype)

    @cached_property
    def valid(self) -> tuple[Tensor | None, ...]:
        """For each step which groups had a gradient; None where all had."""
        by_presence: dict[tuple[bool, ...], Tensor] = {}
        blank = torch.zeros((), dtype=torch.float32)
        for step in self.steps:
            if step.present is not None and step.present not in by_presence:
                presence = [blank if each else None for each in step.present]
                by_presence[step.present] = self.groups.present(presence, self.norm.device)
        return tuple(None if s.present is None else by_presence[s.present] for s in self.steps)

    def rates(self, key: str) -> list[Rate] | None:
        """For each step, `lr` or `weight_decay`; None where no optimizer was given."""
        rates: list[Rate] = []
        previous: list[Rate] | None = None
        for step in self.steps:
            if step.rates is None:
                return None
            values = step.rates[key]
            if values is previous:  # most steps have those of the step before
                rates.append(rates[-1])
                continue
            previous = values
            numbers: list[Rate] = [float(value) for value in values]  # waits for a GPU
            rates.append(_RatesOfAStep({key: numbers}).spread(key, self.groups, self.norm.device))
        return rates


class _RatesOfAStep(OptimizerHyperparameters):
    """Rates as they were noted at a step."""

    def __init__(self, values: Mapping[str, list[Rate]]) -> None:
        self._values = values

    def each(self, key: str) -> list[Rate]:
        return self._values[key]
