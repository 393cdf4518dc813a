"""Runs whose strategies are asked in one call: measure, ask, remember, for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gclip.clipping.answers import remembered
from gclip.clipping.assignment import ChainPosition
from gclip.clipping.norms import ALL_FINITE, norm_type
from gclip.clipping.rules import Decision, decide, leave_nonfinite_groups, remember_step
from gclip.clipping.state import copied, retyped
from gclip.core.seen import Band, Rate, Seen
from gclip.core.strategy import Memory
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
        keep_nonfinite: whether gradients that are not finite are clipped all the same.
    """

    step: int
    total_steps: int | None
    grads: Sequence[Tensor | None]
    weights: StackedNorms
    sources: Sequence[Tensor | None] | None
    hyperparameters: FleetHyperparameters
    finite: Tensor
    keep_nonfinite: bool = False


class StrategyBatch:
    """One strategy at work on some runs.

    Args:
        strategy: of all these runs.
        groups: the norms' groups.
        runs: how many runs there are on its side, of which these are some.

    Attributes:
        rows: which runs, of the side that they are on.
        stage: how many strategies come before it in its runs.
        state_key: what its memory is saved under; see `gclip.clipping.assignment`.
        first, last: whether it is the first and the last in its chain.
        reported: whether it is what reports and records are about.
        decision: what the strategies decided in the last step.
        norm: each group's norm, ``(rows, groups)``.
        before, after: the norms that the record adds up: L2 norms, of the groups or (where
            elements are clamped) of the tensors.
    """

    _memory_by_group = True
    decision: Decision
    norm: Tensor
    before: Tensor
    after: Tensor

    def __init__(
        self,
        strategy: VectorizedStrategy,
        groups: StackedGroups,
        rows: Sequence[int],
        *,
        stage: int,
        state_key: ChainPosition,
        first: bool,
        last: bool,
        reported: bool,
        runs: int,
    ) -> None:
        self.strategy, self.groups, self.rows = strategy, groups, list(rows)
        self.stage, self.state_key = stage, state_key
        self.first, self.last, self.reported = first, last, reported
        self.memory: Any = None
        self.dtype: torch.dtype | None = None  # of the norms that memory is made for
        self.rule = strategy.strategies[0].rule
        self.clamps = strategy.strategies[0].clamps
        self.runs = runs
        low, high = self.rows[0], self.rows[-1] + 1
        # Neighbours are a slice, and all of them everything: nothing is copied.
        self._slice = slice(low, high) if self.rows == list(range(low, high)) else None
        self.all_runs = len(self.rows) == runs
        self._index: dict[tuple[torch.device, int], Tensor] = {}

    def index(self, device: torch.device, offset: int = 0) -> Tensor:
        """The rows as a tensor, counted from `offset`."""
        key = (device, offset)
        if key not in self._index:
            self._index[key] = torch.tensor([row + offset for row in self.rows], device=device)
        return self._index[key]

    def select(self, values: Tensor) -> Tensor:
        """Of ``(runs, …)``, these rows; a view where they are neighbours."""
        if self.all_runs:
            return values
        if self._slice is not None:
            return values[self._slice]
        return values.index_select(0, self.index(values.device))

    def scatter(self, into: Tensor, values: Tensor) -> None:
        """Into ``(runs, …)``, at these rows."""
        if self._slice is not None:
            into[self._slice].copy_(values)
        else:
            into.index_copy_(0, self.index(into.device), values.to(into.dtype))

    def read_norms(self, norms: StackedNorms, recording: bool) -> None:
        """This step's norms."""
        self.norm = self.select(norms.of(self.groups))
        self.before = self.norm
        if recording and self.clamps:
            self.before = self.select(norms.tensor_norms(self.groups))
        elif recording and self.groups.order != 2.0:
            self.before = self.select(norms.of(self.groups.l2))

    def decide(self, inputs: StepInputs) -> Tensor | None:
        """Let the strategies decide and learn; which rows want their step skipped, or None."""
        device = self.norm.device
        if self.norm.dtype != self.dtype:
            self._match_dtype(inputs)
        dtype = self.norm.dtype
        strategy = self.strategy.at(inputs.step, device, dtype)
        norm = self.norm[0] if self.strategy.unbatched else self.norm
        if self.memory is None:
            self.memory = remembered(strategy, torch.zeros_like(norm))
        valid = self._valid(inputs, norm)
        seen = Seen(
            norm,
            step=inputs.step,
            weight_norm=lambda: self._drop_run_dim(self.select(inputs.weights.of(self.groups))).to(
                dtype
            ),
            size=lambda: self.groups.single_run.sizes(device, self._trained(inputs), dtype=dtype),
            lr=self._hyperparameter(inputs, "lr"),
            weight_decay=self._hyperparameter(inputs, "weight_decay"),
            valid=valid,
            total_steps=inputs.total_steps,
        )
        decision = decide(strategy, seen, self.memory)
        if inputs.keep_nonfinite and inputs.finite is not ALL_FINITE:
            decision = leave_nonfinite_groups(decision, clamps=self.clamps)
        self.memory = remember_step(strategy, seen, decision.clipped_norm, self.memory, valid)
        skip = decision.skip
        if self.strategy.unbatched:
            decision = Decision(*(_add_run_dim(part) for part in decision))
            skip = None if skip is None else skip.view(1, 1)
        self.decision = decision
        self.after = decision.clipped_norm
        if not self.clamps and self.groups.order != 2.0:
            self.after = self.before * decision.factor
        return skip

    def count_clamped(self, norms: StackedNorms) -> None:
        """Where bounds are not symmetric, the largest element does not tell what is cut."""
        if not (self.clamps and isinstance(self.decision.bounds, Band)):
            return
        least, most = (self.select(self.groups.select_tensors(end)) for end in norms.extremes())
        low, high = self.decision.bounds
        clipped = ~((least >= low) & (most <= high))  # also where one is NaN
        self.after = torch.maximum(least.clamp(min=low).abs(), most.clamp(max=high).abs())
        self.decision = self.decision._replace(clipped=clipped, clipped_norm=self.after)

    def write_elements(self, inputs: StepInputs) -> None:
        """Change elements, for strategies that do so themselves."""

    def select_runs(self, new_index: Mapping[int, int], runs: int) -> StrategyBatch | None:
        """The same on fewer runs: `new_index` says where each run that stays goes."""
        staying = [i for i, row in enumerate(self.rows) if row in new_index]
        if not staying:
            return None
        ordered = sorted(staying, key=lambda i: new_index[self.rows[i]])
        batch = type(self)(
            self.strategy.select_runs(ordered),
            self.groups,
            [new_index[self.rows[i]] for i in ordered],
            stage=self.stage,
            state_key=self.state_key,
            first=self.first,
            last=self.last,
            reported=self.reported,
            runs=runs,
        )
        memory = self.memory if self.strategy.unbatched else index_memory(self.memory, ordered)
        batch.resume(memory, self.dtype)
        return batch

    def resume(self, memory: Any, dtype: torch.dtype | None) -> None:
        """Go on with the memory of a batch before this one."""
        self.memory, self.dtype = memory, dtype

    def state_dict(self) -> dict[str, Any]:
        """What it remembers of all its runs, as a copy."""
        dtype = None if self.dtype is None else str(self.dtype)
        return {"memory": copied(self.memory), "dtype": dtype}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from where `state_dict` was taken, on a batch of the same runs."""
        self.resume(copied(state["memory"], device), read_dtype(state["dtype"]))

    def memory_of(self, row: int) -> Any:
        """What a clipper of that run alone would have in its memory, as a copy."""
        if self.strategy.unbatched:
            return copied(self.memory)
        return copied(index_memory(self.memory, self.rows.index(row)))

    # -- inside ------------------------------------------------------------------------------

    def _match_dtype(self, inputs: StepInputs) -> None:
        """Norms have another dtype than before: memory is converted to it."""
        if self.norm.dtype == torch.float32 and norm_type(inputs.weights.tensors) == torch.float64:
            self.norm = self.norm.double()  # only the gradients that are float64 are missing
        if self.norm.dtype != self.dtype:
            self.dtype = self.norm.dtype
            if self._memory_by_group:
                self.memory = retyped(self.memory, self.dtype)

    def _drop_run_dim(self, values: Tensor) -> Tensor:
        return values[0] if self.strategy.unbatched else values

    def _valid(self, inputs: StepInputs, norm: Tensor) -> Tensor | None:
        """Which norms may enter memory, or None: all."""
        missing = not all(inputs.grads[i] is not None for i in self.groups.indices)
        if inputs.finite is ALL_FINITE and not missing:
            return None
        valid = torch.ones_like(norm, dtype=torch.bool)
        if inputs.finite is not ALL_FINITE:
            valid = valid & self._drop_run_dim(self.select(inputs.finite))
        if missing:
            grads = [inputs.grads[i] for i in self.groups.indices]
            valid = valid & self.groups.single_run.present(grads, norm.device)
        return valid

    def _trained(self, inputs: StepInputs) -> list[bool]:
        return [inputs.weights.tensors[i] is not None for i in self.groups.indices]

    def _hyperparameter(self, inputs: StepInputs, key: str) -> Callable[[], Rate] | None:
        if not inputs.hyperparameters.known(key):
            return None

        def read() -> Rate:
            value = inputs.hyperparameters.by_group(
                key, self.groups, self.norm.device, self.norm.dtype
            )
            if isinstance(value, Tensor) and value.ndim == 2:
                return self._drop_run_dim(self.select(value))
            return value

        return read


def read_dtype(text: str | None) -> torch.dtype | None:
    """The dtype that is called ``torch.float32``."""
    found = None if text is None else getattr(torch, text.removeprefix("torch."))
    if found is not None and not isinstance(found, torch.dtype):
        raise ValueError(f"{text} is no dtype")
    return found


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


def bounds(decision: Decision, like: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest element that a clamp leaves, ``(rows, groups)``."""
    low, high = decision.bounds if isinstance(decision.bounds, Band) else (None, decision.bounds)
    most = _as_tensor(high, like)
    return -most if low is None else _as_tensor(low, like), most


def _as_tensor(bound: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(bound, Tensor):
        return bound.to(like.dtype).expand_as(like)
    return torch.full_like(like, bound)
