"""The clipper of many runs whose parameters are stacked: measure → ask → clip, for all at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gclip.clipping.assignment import PartState, saved_state
from gclip.clipping.clipper import NONFINITE, Nonfinite
from gclip.clipping.gradients import Apart, gradients
from gclip.clipping.norms import ALL_FINITE
from gclip.clipping.parameters import Spec
from gclip.clipping.record import Record
from gclip.clipping.units import UnitDims, axes
from gclip.errors import UsageError, choose
from gclip.training.fleet import broadcast
from gclip.training.fleet.batching import RunStrategies, assign_run, make_batches
from gclip.training.fleet.hyperparameters import FleetHyperparameters
from gclip.training.fleet.recorder import FleetRecorder
from gclip.training.fleet.report import FleetReport
from gclip.training.fleet.stacked_clipper import StackedClipper
from gclip.training.fleet.stacked_groups import StackedParameters
from gclip.training.fleet.stacked_norms import StackedNorms
from gclip.training.fleet.strategy_batch import StepInputs
from gclip.training.fleet.update import FleetUpdateClipper


class NotFinite(FloatingPointError):
    """Gradients that are not finite, under ``nonfinite="raise"``.

    Attributes:
        runs: the places of the runs whose gradients they are.
    """

    def __init__(self, message: str, runs: Sequence[int]) -> None:
        super().__init__(message)
        self.runs = tuple(runs)


class FleetClipper:
    """Clips the gradients of many runs, each as its own `gclip.Clipper` would.

    Args:
        stacks: the parameters by name, each ``(runs, *shape)``: one slice a run.
        strategies: one a run, as `gclip.Clipper` takes them.
        nonfinite: as in `gclip.Clipper`, for each run apart: a run whose gradients are not finite
            changes nothing for the others. ``raise`` raises `NotFinite` for all of them.
        record: keep a `Record` of every run.
        optimizer: that steps the stacks, for strategies that need its learning rate.
        rates: ``(runs,)``, the runs' learning rates where they are not the optimizer's.
        total_steps: how many steps the runs will have, for schedules that do not say it.
        model: of one run, whose classes tell what a unit is (`gclip.clipping.units`).
        unit_dims: as in `gclip.Clipper`; the runs' own dimensions are counted.

    Raises:
        UsageError: as `gclip.Clipper`; and for strategies that clip single examples.
    """

    def __init__(
        self,
        stacks: Mapping[str, nn.Parameter],
        strategies: Sequence[Spec],
        *,
        nonfinite: Nonfinite = "skip",
        record: bool = True,
        optimizer: torch.optim.Optimizer | None = None,
        rates: Tensor | None = None,
        total_steps: int | None = None,
        model: nn.Module | None = None,
        unit_dims: UnitDims | None = None,
    ) -> None:
        choose(nonfinite, NONFINITE, "nonfinite policy")
        self.nonfinite: Nonfinite = nonfinite
        self.runs = len(strategies)
        self.report: FleetReport | None = None
        self._names, self._stacks = _checked(stacks, self.runs)
        self._recording, self._optimizer, self._total_steps = record, optimizer, total_steps
        self.rates = rates
        shapes = [stack.shape[1:] for stack in self._stacks]
        known = {} if model is None else dict(model.named_parameters(remove_duplicate=False))
        ones = [
            known.get(n, torch.empty(s, device="meta"))
            for n, s in zip(self._names, shapes, strict=True)
        ]
        self._layout = StackedParameters(
            self._names, shapes, axes(self._names, ones, model, unit_dims)
        )
        tasks = _tasks(self._names, strategies)
        batches = make_batches([t.gradient for t in tasks], self._layout, total_steps)
        self._gradient = StackedClipper(batches, self._layout, self.runs)
        self._updates: FleetUpdateClipper | None = None
        if mine := [run for run, t in enumerate(tasks) if t.update]:
            span = slice(mine[0], mine[-1] + 1)
            batches = make_batches([t.update for t in tasks[span]], self._layout, total_steps)
            side = StackedClipper(batches, self._layout, span.stop - span.start)
            self._updates = FleetUpdateClipper(side, self._stacks, span)
        self._apart = Apart()
        self._ledger = FleetRecorder(self.runs)
        self._result: tuple[Tensor, Tensor | None] | None = None
        self._step = 0
        self._warned = False

    @torch.no_grad()
    def step(self) -> FleetReport:
        """Measure the gradients, ask the strategies, clip in place; as `gclip.Clipper.step`.

        Returns:
            What was done to each run, in tensors that stay on the device.

        Raises:
            NotFinite: a gradient is not finite and the policy is ``raise``.
        """
        updates = self._updates
        if self._result is not None and not (updates is not None and updates.held):
            raise UsageError(
                "the last update was not clipped: write `with clipper.updating(): optimizer.step()`"
            )
        grads = gradients(self._stacks)
        if not any(grad is not None for grad in grads):
            return self._nothing()
        if self._apart.settle(self._stacks, grads, strided=True):
            grads = gradients(self._stacks)
        finite = self._gradient.measure(grads, self._recording)
        if self.nonfinite == "raise" and not bool(finite.all()):
            self._refuse(finite, grads)
        device = next(grad.device for grad in grads if grad is not None)
        trained = [stack if stack.requires_grad else None for stack in self._stacks]
        weights = StackedNorms(
            trained, self._layout, self.runs, device, spans=self._gradient.spans, again=False
        )
        fine = self._gradient.memorable(finite)
        now = StepInputs(
            self._step, self._total_steps, grads, weights, None, self._rates(), fine, self._keep
        )
        skip = self._gradient.clip(now, self._recording)
        if self.nonfinite == "skip" and finite is not ALL_FINITE:
            skip = ~finite if skip is None else skip | ~finite
        if skip is not None:
            broadcast.zero_runs(grads, skip)
        self._step += 1
        if updates is not None:
            self._result = (finite, skip)
        self.report = self._report(finite, skip, waits=updates is not None)
        return self.report

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Around ``optimizer.step()``: clip the update, for strategies of the side ``update``.

        Without such strategies it does nothing. Afterwards `report` is complete.
        """
        updates = self._updates
        if updates is None:
            yield
            return
        updates.hold()
        try:
            yield
            if self._result is not None:
                with torch.no_grad():
                    self._clip_update(updates, *self._result)
        finally:
            updates.drop()
            self._result = None

    @property
    def on_updates(self) -> bool:
        """Whether a strategy clips the optimizer's update, so that `updating` is needed."""
        return self._updates is not None

    @property
    def undoable(self) -> slice | None:
        """The runs whose update may turn out to be one to skip: their optimizer must be able to
        take it back. None where there are none."""
        updates = self._updates
        if updates is None or (self.nonfinite == "keep" and not updates.skips):
            return None
        return updates.span

    def keep(
        self,
        places: Sequence[int],
        stacks: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """From now on only the runs at these `places`, in this order, with these new stacks.

        Where the clipper was made with an `optimizer`, it needs the one of the new stacks; `rates`
        keeps the entries of the runs that stay.

        Raises:
            UsageError: places that are not runs or come twice; stacks of other shapes.
        """
        kept = list(places)
        if len(set(kept)) != len(kept) or not all(0 <= place < self.runs for place in kept):
            raise UsageError(f"keep takes places of {self.runs} runs, each once, but got {kept}")
        names, self._stacks = _checked(stacks, len(kept))
        shapes = tuple(stack.shape[1:] for stack in self._stacks)
        if (names, shapes) != (self._names, self._layout.shapes):
            raise UsageError("keep takes stacks of the same parameters, with fewer runs")
        where = {old: new for new, old in enumerate(kept)}
        if self.rates is not None:
            self.rates = self.rates[torch.tensor(kept, device=self.rates.device)]
        self._optimizer = optimizer
        self._gradient = self._gradient.pick(where, len(kept))
        if self._updates is not None:
            self._updates = self._updates.pick(where, self._stacks)
        self._ledger = self._ledger.pick(kept)
        self.runs, self.report, self._result = len(kept), None, None

    def records(self) -> list[Record]:
        """Each run's record."""
        return self._ledger.records()

    def states(self) -> list[dict[str, Any]]:
        """For each run, the ``state_dict()`` that a `gclip.Clipper` of it alone would have."""
        made: list[dict[str, Any]] = []
        sides = [(self._gradient, 0)]
        if self._updates is not None:
            sides.append((self._updates.side, self._updates.span.start))
        for run, record in enumerate(self.records()):
            mine = [(b, run - at) for s, at in sides for b in s.batches if run - at in b.rows]
            parts = [
                PartState.of(
                    b.where,
                    b.merged.strategies[b.rows.index(row)],
                    b.view.groups,
                    b.memory_of(row),
                )
                for b, row in mine
            ]
            made.append(saved_state(self._step, parts, record))
        return made

    def __repr__(self) -> str:
        batches = [*self._gradient.batches, *(self._updates.side.batches if self._updates else [])]
        return f"FleetClipper({self.runs} runs, asked {len(batches)} at a time; {self._step} steps)"

    # -- inside ------------------------------------------------------------------------------

    @property
    def _keep(self) -> bool:
        return self.nonfinite == "keep"

    def _rates(self) -> FleetHyperparameters:
        return FleetHyperparameters(self._optimizer, self._stacks, self.rates, self.runs)

    def _clip_update(
        self, updates: FleetUpdateClipper, finite: Tensor, skip: Tensor | None
    ) -> None:
        span, step = updates.span, self._step - 1  # `step` has counted this one already
        found = updates.measure(self._recording)
        if self.nonfinite == "raise" and not bool(found.all()):
            bad = [span.start + int(run) for run in (~found.view(-1)).nonzero()]
            updates.undo()
            raise NotFinite(
                f"the updates of runs {_listed(bad)} are not finite at step {step}", bad
            )
        fine = found
        if finite is not ALL_FINITE:
            fine = fine & finite[span]
        if skip is not None:  # what a skipped step leaves is no update to learn from
            fine = fine & ~skip[span]
        fine = updates.side.memorable(fine)
        wish = updates.clip(
            step, self._total_steps, self._rates(), fine, self._recording, keep=self._keep
        )
        if self.nonfinite == "skip" and found is not ALL_FINITE:
            wish = ~found if wish is None else wish | ~found
        if wish is not None:
            broadcast.zero_runs(updates.deltas, wish)
            skip = wish.new_zeros((self.runs, 1)) if skip is None else skip.clone()
            skip[span] |= wish
        updates.settle(None if skip is None else skip[span])
        self.report = self._report(finite, skip, waits=False)

    def _report(self, finite: Tensor, skip: Tensor | None, *, waits: bool) -> FleetReport:
        """The step's report and record; where it `waits` for the update, of the gradients only."""
        batches = [(0, b) for b in self._gradient.batches if b.shown or waits]
        entries = self._gradient.entries(everything=waits)
        if self._updates is not None and not waits:
            start = self._updates.span.start
            batches += [(start, b) for b in self._updates.side.batches]
            entries += self._updates.side.entries(start)
        if finite is ALL_FINITE:
            finite = torch.ones((self.runs, 1), dtype=torch.bool)
        skipped = torch.zeros_like(finite) if skip is None else skip
        if self._recording and not waits:
            self._ledger.add(entries, finite, skipped)
        return FleetReport(batches, entries, finite.view(-1), skipped.view(-1))

    def _refuse(self, finite: Tensor, grads: Sequence[Tensor | None]) -> None:
        bad = [int(run) for run in (~finite.view(-1)).nonzero()]
        names = [
            name
            for name, grad in zip(self._names, grads, strict=True)
            if grad is not None and not bool(torch.isfinite(grad[bad]).all())
        ]
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if names[10:] else "")
        raise NotFinite(
            f"gradients of runs {_listed(bad)} are not finite at step {self._step}: "
            f"{shown or 'their norm overflows'}",
            bad,
        )

    def _nothing(self) -> FleetReport:
        """No gradient anywhere: nothing to clip, and most likely a mistake in the loop."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                "no parameter has a gradient, so nothing was clipped: call clipper.step() after "
                "backward() and before zero_grad()",
                stacklevel=4,
            )
        fine = torch.ones(self.runs, dtype=torch.bool, device=self._stacks[0].device)
        self.report = FleetReport([], [], fine, ~fine)
        return self.report


def _checked(
    stacks: Mapping[str, nn.Parameter], runs: int
) -> tuple[tuple[str, ...], list[nn.Parameter]]:
    if not stacks or not runs:
        raise UsageError("there is nothing to clip: a fleet has at least one run and one stack")
    for name, stack in stacks.items():
        if not stack.ndim or len(stack) != runs:
            raise UsageError(
                f"the stack {name!r} of shape {tuple(stack.shape)} does not have the fleet's "
                f"{runs} runs as its first dimension"
            )
    return tuple(stacks), list(stacks.values())


def _tasks(names: Sequence[str], specs: Sequence[Spec]) -> list[RunStrategies]:
    known: dict[object, RunStrategies] = {}  # runs often share one
    for spec in specs:
        key = spec if isinstance(spec, str) else id(spec)
        if key not in known:
            known[key] = assign_run(names, spec)
    return [known[spec if isinstance(spec, str) else id(spec)] for spec in specs]


def _listed(runs: Sequence[int]) -> str:
    return ", ".join(map(str, runs))
