"""The clipper of many runs whose parameters are stacked: measure → ask → clip, for all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from gclip.clipping.assignment import StrategyState, saved_state
from gclip.clipping.base_clipper import BaseClipper, Nonfinite
from gclip.clipping.gradients import AliasedGradients, gradients
from gclip.clipping.nonfinite import NonfiniteGradients
from gclip.clipping.norms import ALL_FINITE
from gclip.clipping.parameters import Spec
from gclip.clipping.record import Record
from gclip.clipping.units import UnitDims, axes
from gclip.errors import UsageError
from gclip.training.fleet import broadcast
from gclip.training.fleet.batching import RunStrategies, assign_run, make_batches
from gclip.training.fleet.hyperparameters import FleetHyperparameters
from gclip.training.fleet.nonfinite import refuse_gradients, refuse_updates
from gclip.training.fleet.recorder import FleetRecorder
from gclip.training.fleet.report import FleetReport
from gclip.training.fleet.stacked_clipper import StackedClipper
from gclip.training.fleet.stacked_groups import StackedParameters
from gclip.training.fleet.stacked_norms import StackedNorms
from gclip.training.fleet.strategy_batch import StepInputs, StrategyBatch
from gclip.training.fleet.update import FleetUpdateClipper


class FleetClipper(BaseClipper):
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
        super().__init__(nonfinite)
        self.runs = len(strategies)
        self.report: FleetReport | None = None
        self._names, self._stacks = _checked(stacks, self.runs)
        self._recording, self._optimizer, self._total_steps = record, optimizer, total_steps
        self._rates: Tensor | None = None
        if rates is not None:
            self.set_rates(rates)
        shapes = [stack.shape[1:] for stack in self._stacks]
        known = {} if model is None else dict(model.named_parameters(remove_duplicate=False))
        single = [
            known.get(n, torch.empty(s, device="meta"))
            for n, s in zip(self._names, shapes, strict=True)
        ]
        self._parameters = StackedParameters(
            self._names, shapes, axes(self._names, single, model, unit_dims)
        )
        assigned = _assigned(self._names, strategies)
        batches = make_batches([each.gradient for each in assigned], self._parameters, total_steps)
        self._gradient = StackedClipper(batches, self._parameters, self.runs)
        self._updates = None
        if updated := [run for run, each in enumerate(assigned) if each.update]:
            span = slice(updated[0], updated[-1] + 1)
            batches = make_batches(
                [each.update for each in assigned[span]], self._parameters, total_steps
            )
            clipper = StackedClipper(batches, self._parameters, span.stop - span.start)
            self._updates = FleetUpdateClipper(clipper, self._stacks, span, recording=record)
        self._shared_memory = AliasedGradients()
        self._recorder = FleetRecorder(self.runs)
        self._nonfinite: NonfiniteGradients | None = None

    @torch.no_grad()
    def step(self) -> FleetReport:
        """Measure the gradients, ask the strategies, clip in place; as `gclip.Clipper.step`.

        Returns:
            What was done to each run, in tensors that stay on the device.

        Raises:
            NotFinite: a gradient is not finite and the policy is ``raise``.
        """
        self._refuse_pending()
        grads = gradients(self._stacks)
        if not any(grad is not None for grad in grads):
            return self._no_gradients()
        if self._shared_memory.separate(self._stacks, grads, strided=True):
            grads = gradients(self._stacks)
        finite = self._gradient.measure(grads, self._recording)
        if self.nonfinite == "raise" and not bool(finite.all()):
            refuse_gradients(finite, self._names, grads, self._step)
        self._nonfinite = self._gradient.nonfinite(finite)
        device = next(grad.device for grad in grads if grad is not None)
        weights = StackedNorms(
            [stack if stack.requires_grad else None for stack in self._stacks],
            self._parameters,
            self.runs,
            device,
            spans=self._gradient.spans,
            recheck=False,
        )
        inputs = StepInputs(
            self._step,
            self._total_steps,
            grads,
            weights,
            None,
            self._hyperparameters(),
            self._gradient.memorable(finite),
            self.nonfinite == "keep",
        )
        skip = self._gradient.clip(inputs, self._recording)
        if finite is not ALL_FINITE:
            skip = self._skip_nonfinite(skip, finite)
        if skip is not None:
            broadcast.zero_runs(grads, skip)
        self._step += 1
        if self.on_updates:
            self._pending = (finite, skip)
        self.report = self._report(finite, skip, awaits_update=self.on_updates)
        return self.report

    @property
    def undoable(self) -> slice | None:
        """The runs whose update may turn out to be one to skip: their optimizer must be able to
        take it back. None where there are none."""
        update: FleetUpdateClipper | None = self._updates
        if update is None or (self.nonfinite == "keep" and not update.skips):
            return None
        return update.span

    def set_rates(self, rates: Tensor) -> None:
        """The runs' learning rates from the next step on, ``(runs,)``.

        Raises:
            UsageError: they have another shape.
        """
        if rates.shape != (self.runs,):
            raise UsageError(
                f"rates holds one learning rate a run, ({self.runs},), but has the shape "
                f"{tuple(rates.shape)}"
            )
        self._rates = rates.detach()

    def select_runs(
        self,
        indices: Sequence[int],
        stacks: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """From now on only the runs at these `indices`, in this order, with these new stacks.

        Where the clipper was made with an `optimizer`, it needs the one of the new stacks; of the
        learning rates, the entries of the runs that stay are kept.

        Raises:
            UsageError: indices that are not runs or come twice; stacks of other shapes.
        """
        chosen = list(indices)
        if len(set(chosen)) != len(chosen) or not all(0 <= run < self.runs for run in chosen):
            raise UsageError(
                f"select_runs takes indices of {self.runs} runs, each once, but got {chosen}"
            )
        names, self._stacks = _checked(stacks, len(chosen))
        shapes = tuple(stack.shape[1:] for stack in self._stacks)
        if (names, shapes) != (self._names, self._parameters.shapes):
            raise UsageError("select_runs takes stacks of the same parameters, with fewer runs")
        new_index = {old: new for new, old in enumerate(chosen)}
        if self._rates is not None:
            self._rates = self._rates[torch.tensor(chosen, device=self._rates.device)]
        self._optimizer = optimizer
        self._gradient = self._gradient.select_runs(new_index, len(chosen))
        if self._updates is not None:
            self._updates = self._updates.select_runs(new_index, self._stacks)
        self._recorder.select_runs(chosen)
        self.runs, self.report, self._pending = len(chosen), None, None

    def records(self) -> list[Record]:
        """Each run's record."""
        return self._recorder.records()

    def states(self) -> list[dict[str, Any]]:
        """For each run, the ``state_dict()`` that a `gclip.Clipper` of it alone would have."""
        batches = self._batches()
        states: list[dict[str, Any]] = []
        for run, record in enumerate(self.records()):
            parts = [
                StrategyState.of(
                    batch.state_key,
                    batch.strategy.strategies[batch.rows.index(run - offset)],
                    batch.groups.single_run,
                    batch.memory_of(run - offset),
                )
                for offset, batch in batches
                if run - offset in batch.rows
            ]
            states.append(saved_state(self._step, parts, record))
        return states

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on, for a clipper of the same runs after the same
        `select_runs`."""
        return {
            "step": self._step,
            "record": self._recorder.state_dict(),
            "batches": [batch.state_dict() for _, batch in self._batches()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self._step = state["step"]
        self._recorder.load_state_dict(state["record"])
        for (_, batch), saved in zip(self._batches(), state["batches"], strict=True):
            batch.load_state_dict(saved, self._stacks[0].device)

    def __repr__(self) -> str:
        count = len(self._batches())
        return f"FleetClipper({self.runs} runs, asked {count} at a time; {self._step} steps)"

    # -- inside ------------------------------------------------------------------------------

    def _batches(self) -> list[tuple[int, StrategyBatch]]:
        """All batches, and the run that the first row of each is."""
        batches = [(0, batch) for batch in self._gradient.batches]
        if self._updates is not None:
            start = self._updates.span.start
            batches += [(start, batch) for batch in self._updates.clipper.batches]
        return batches

    def _hyperparameters(self) -> FleetHyperparameters:
        return FleetHyperparameters(self._optimizer, self._stacks, self._rates)

    def _ask_updates(self, step: int, learns: Tensor) -> Tensor | None:
        update: FleetUpdateClipper = self._updates
        return update.clip(
            step,
            self._total_steps,
            self._hyperparameters(),
            update.clipper.memorable(learns),
            keep_nonfinite=self.nonfinite == "keep",
        )

    def _refuse_update(self, step: int, finite: Tensor, /) -> NoReturn:
        refuse_updates(finite, self._updates.span.start, step)

    def _report_update(self, finite: Tensor, skip: Tensor | None) -> None:
        self.report = self._report(finite, skip, awaits_update=False)

    def _report(self, finite: Tensor, skip: Tensor | None, *, awaits_update: bool) -> FleetReport:
        """The step's report and record; where it awaits the update, of the gradients only."""
        batches = [(0, b) for b in self._gradient.batches if b.reported or awaits_update]
        entries = self._gradient.entries(everything=awaits_update)
        if self._updates is not None and not awaits_update:
            start = self._updates.span.start
            batches += [(start, b) for b in self._updates.clipper.batches]
            entries += self._updates.clipper.entries(start)
        if finite is ALL_FINITE:
            finite = torch.ones((self.runs, 1), dtype=torch.bool)
        skipped = torch.zeros_like(finite) if skip is None else skip
        if self._recording and not awaits_update:
            self._recorder.add(entries, finite, skipped, self._nonfinite)
        return FleetReport(batches, entries, finite.view(-1), skipped.view(-1))

    def _no_gradients(self) -> FleetReport:
        """No gradient anywhere: nothing to clip, and most likely a mistake in the loop."""
        self._warn_no_gradients(stacklevel=4)
        finite = torch.ones(self.runs, dtype=torch.bool, device=self._stacks[0].device)
        self.report = FleetReport([], [], finite, ~finite)
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


def _assigned(names: Sequence[str], specs: Sequence[Spec]) -> list[RunStrategies]:
    cache: dict[object, RunStrategies] = {}  # runs often share one
    keys = [spec if isinstance(spec, str) else id(spec) for spec in specs]
    for key, spec in zip(keys, specs, strict=True):
        if key not in cache:
            cache[key] = assign_run(names, spec)
    return [cache[key] for key in keys]
