"""Runs whose strategies are asked in one call: measure, ask, remember, for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gclip.clipping.answers import remembered
from gclip.clipping.assignment import Place
from gclip.clipping.norms import ALL_FINITE, norm_type
from gclip.clipping.rules import Decision, decide, left_alone, remember_step
from gclip.clipping.state import copied, retyped
from gclip.core.seen import Band, Rate, Seen
from gclip.core.strategy import Memory, Strategy
from gclip.training.fleet.hyperparameters import FleetHyperparameters
from gclip.training.fleet.stacked_groups import StackedGroups
from gclip.training.fleet.stacked_norms import StackedNorms
from gclip.training.fleet.vectorized_strategy import VectorizedStrategy


class StepInputs(NamedTuple):
    """One step of a clipper on one side.

    Attributes:
        grads: what is clipped in place, stacks ``(runs, *shape)`` or None.
        weights: the parameters before the step, measured when asked for; None for frozen ones.
        sources: on the side of updates, the gradients that they came from.
        finite: bool ``(runs, 1)``, which runs may remember this step; or `ALL_FINITE`.
        keep: whether gradients that are not finite are clipped all the same.
    """

    step: int
    total_steps: int | None
    grads: Sequence[Tensor | None]
    weights: StackedNorms
    sources: Sequence[Tensor | None] | None
    rates: FleetHyperparameters
    finite: Tensor
    keep: bool = False


class StrategyBatch:
    """One strategy at work on some runs.

    Attributes:
        rows: which runs, of the side that they are on.
        place: how many strategies come before it in its runs.
        where: what its memory is saved under; see `gclip.clipping.assignment`.
        first, last: whether it is the first and the last in its chain.
        shown: whether it is what reports and records are about.
        norm: each group's norm, ``(rows, groups)``.
        before, after: the norms that the record adds up: L2 norms, of the groups or (where
            elements are clamped) of the tensors.
    """

    made: Decision
    norm: Tensor
    before: Tensor
    after: Tensor

    def __init__(
        self,
        merged: VectorizedStrategy,
        view: StackedGroups,
        rows: Sequence[int],
        *,
        place: int,
        where: Place,
        first: bool,
        last: bool,
        shown: bool,
        runs: int,
    ) -> None:
        self.merged, self.view, self.rows = merged, view, list(rows)
        self.place, self.where = place, where
        self.first, self.last, self.shown = first, last, shown
        self.memory: Any = None
        self.dtype: torch.dtype | None = None  # of the norms that memory is made for
        strategy = merged.strategies[0]
        self.rule = strategy.rule
        self.clamps = clamps(strategy)
        self.runs = runs
        low, high = self.rows[0], self.rows[-1] + 1
        # Neighbours are a slice, and all of them everything: nothing is copied.
        self.slice = slice(low, high) if self.rows == list(range(low, high)) else None
        self.whole = len(self.rows) == runs
        self._index: dict[tuple[torch.device, int], Tensor] = {}

    def index(self, device: torch.device, offset: int = 0) -> Tensor:
        """The rows as a tensor, counted from `offset`."""
        key = (device, offset)
        if key not in self._index:
            self._index[key] = torch.tensor([row + offset for row in self.rows], device=device)
        return self._index[key]

    def mine(self, values: Tensor) -> Tensor:
        """Of ``(runs, …)``, these rows; a view where they are neighbours."""
        if self.whole:
            return values
        if self.slice is not None:
            return values[self.slice]
        return values.index_select(0, self.index(values.device))

    def put(self, into: Tensor, values: Tensor) -> None:
        """Into ``(runs, …)``, at these rows."""
        if self.slice is not None:
            into[self.slice].copy_(values)
        else:
            into.index_copy_(0, self.index(into.device), values.to(into.dtype))

    def take(self, measured: StackedNorms, recording: bool) -> None:
        """This step's norms."""
        self.norm = self.mine(measured.of(self.view))
        self.before = self.norm
        if recording and self.clamps:
            self.before = self.mine(measured.tensor_norms(self.view))
        elif recording and self.view.order != 2.0:
            self.before = self.mine(measured.of(self.view.l2))

    def ask(self, now: StepInputs, measured: StackedNorms) -> Tensor | None:
        """Let the strategies decide and learn; which rows want their step skipped, or None."""
        device = self.norm.device
        if self.norm.dtype != self.dtype:
            self._follow(now)
        dtype = self.norm.dtype
        strategy = self.merged.at(now.step, device, dtype)
        norm = self.norm[0] if self.merged.alone else self.norm
        if self.memory is None:
            self.memory = remembered(strategy, torch.zeros_like(norm))
        valid = self._valid(now, norm)
        seen = Seen(
            norm,
            step=now.step,
            weight_norm=lambda: self._lead(self.mine(now.weights.of(self.view))).to(dtype),
            size=lambda: self.view.groups.sizes(device, self._trained(now), dtype=dtype),
            lr=self._rate(now, "lr"),
            weight_decay=self._rate(now, "weight_decay"),
            valid=valid,
            total_steps=now.total_steps,
        )
        made = decide(strategy, seen, self.memory)
        if now.keep and now.finite is not ALL_FINITE:
            made = left_alone(made, clamps=self.clamps)
        self.memory = remember_step(strategy, seen, made.clipped_norm, self.memory, valid)
        skip = made.skip
        if self.merged.alone:
            made = Decision(*(_add_run_dim(part) for part in made))
            skip = None if skip is None else skip.view(1, 1)
        if self.clamps and isinstance(made.bounds, Band):
            made = self._decided_by_band(made, made.bounds, measured)
        self.made = made
        self.after = made.clipped_norm
        if not self.clamps and self.view.order != 2.0:
            self.after = self.before * made.factor
        return skip

    def write(self, now: StepInputs) -> None:
        """Change elements, for strategies that do so themselves."""

    def pick(self, places: Mapping[int, int], runs: int) -> StrategyBatch | None:
        """The same on fewer runs: `places` says where each run that stays goes."""
        kept = [i for i, row in enumerate(self.rows) if row in places]
        if not kept:
            return None
        ordered = sorted(kept, key=lambda i: places[self.rows[i]])
        made = type(self)(
            self.merged.pick(ordered),
            self.view,
            [places[self.rows[i]] for i in ordered],
            place=self.place,
            where=self.where,
            first=self.first,
            last=self.last,
            shown=self.shown,
            runs=runs,
        )
        made.dtype = self.dtype
        made.memory = self.memory if self.merged.alone else index_memory(self.memory, ordered)
        return made

    def memory_of(self, row: int) -> Any:
        """What a clipper of that run alone would have in its memory, as a copy."""
        if self.merged.alone:
            return copied(self.memory)
        return copied(index_memory(self.memory, self.rows.index(row)))

    # -- inside ------------------------------------------------------------------------------

    def _follow(self, now: StepInputs) -> None:
        """Norms have another dtype than before: memory is made ready for it."""
        if self.norm.dtype == torch.float32 and norm_type(now.weights.tensors) == torch.float64:
            self.norm = self.norm.double()  # only the gradients that are float64 are missing
        if self.norm.dtype != self.dtype:
            self.dtype = self.norm.dtype
            self.memory = self._retyped(self.memory, self.dtype)

    def _retyped(self, memory: Any, dtype: torch.dtype) -> Any:
        return retyped(memory, dtype)

    def _lead(self, values: Tensor) -> Tensor:
        return values[0] if self.merged.alone else values

    def _valid(self, now: StepInputs, norm: Tensor) -> Tensor | None:
        """Which norms may enter memory, or None: all."""
        missing = not all(now.grads[i] is not None for i in self.view.places)
        if now.finite is ALL_FINITE and not missing:
            return None
        valid = torch.ones_like(norm, dtype=torch.bool)
        if now.finite is not ALL_FINITE:
            valid = valid & self._lead(self.mine(now.finite))
        if missing:
            grads = [now.grads[i] for i in self.view.places]
            valid = valid & self.view.groups.present(grads, norm.device)
        return valid

    def _trained(self, now: StepInputs) -> list[bool]:
        return [now.weights.tensors[i] is not None for i in self.view.places]

    def _rate(self, now: StepInputs, key: str) -> Callable[[], Rate] | None:
        if not now.rates.known(key):
            return None

        def found() -> Rate:
            rate = now.rates.spread(key, self.view, self.norm.device, self.norm.dtype)
            if isinstance(rate, Tensor) and rate.ndim == 2:
                return self._lead(self.mine(rate))
            return rate

        return found

    def _decided_by_band(self, made: Decision, band: Band, measured: StackedNorms) -> Decision:
        """Where the bounds are not symmetric, the largest element does not tell what is cut."""
        least, most = (self.mine(self.view.tensors(end)) for end in measured.ends())
        low, high = band
        clipped = ~((least >= low) & (most <= high))  # also where one is NaN
        after = torch.maximum(least.clamp(min=low).abs(), most.clamp(max=high).abs())
        return made._replace(clipped=clipped, clipped_norm=after)


def clamps(strategy: Strategy) -> bool:
    """Whether a strategy cuts elements, so that the largest is what is measured."""
    return strategy.rule != "transform" and (
        strategy.scope == "element" or strategy.rule == "clamp"
    )


def _add_run_dim(part: Any) -> Any:
    """With the leading dimension that a strategy asked alone was not shown."""
    if isinstance(part, Band):
        return Band(*(_add_run_dim(end) for end in part))
    return part.unsqueeze(0) if isinstance(part, Tensor) else part


def index_memory(memory: Memory | Any, runs: int | list[int]) -> Any:
    """Of a memory of many runs, that of some, or (without the leading dimension) of one."""
    if isinstance(memory, Tensor):
        if not memory.ndim:
            return memory
        return memory[runs] if isinstance(runs, int) else memory[torch.tensor(runs)]
    if isinstance(memory, Mapping):
        return {key: index_memory(value, runs) for key, value in memory.items()}
    if isinstance(memory, list | tuple):
        return [index_memory(value, runs) for value in memory]
    return memory


def bounds(made: Decision, like: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest element that a clamp leaves, ``(rows, groups)``."""
    low, high = made.bounds if isinstance(made.bounds, Band) else (None, made.bounds)
    most = _filled(high, like)
    return -most if low is None else _filled(low, like), most


def _filled(bound: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(bound, Tensor):
        return bound.to(like.dtype).expand_as(like)
    return torch.full_like(like, bound)
