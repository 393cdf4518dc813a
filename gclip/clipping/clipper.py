"""The clipper: measure → ask → clip, for the parameters of a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from gclip.clipping.arrangement import ClipperOptions
from gclip.clipping.base_clipper import Nonfinite, nonfinite_sentence
from gclip.clipping.bound_clamp import BoundClamp, clamp_unmeasured
from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.gradients import (
    GradientReader,
    gradients,
    nonfinite_names,
    stored_elements,
)
from gclip.clipping.nonfinite import NonfiniteGradients
from gclip.clipping.norms import ALL_FINITE, NOT_FINITE, all_finite
from gclip.clipping.parameter_sources import ParameterSource
from gclip.clipping.parameters import Parameters, Spec
from gclip.clipping.report import ClipReport
from gclip.clipping.sample_clipper import SampleClipper
from gclip.clipping.skip_monitor import MOST_SKIPS, OnSkips, SkipMonitor
from gclip.clipping.step_flags import (
    StepFlags,
    all_true,
    either,
    learnable,
    nonfinite_gradients,
    zero_where,
)
from gclip.clipping.step_report import step_report
from gclip.clipping.units import UnitDims
from gclip.clipping.update import UpdateClipper
from gclip.core.host import on_host


class Clipper(SampleClipper):
    """Clips a model's gradients by a strategy: call `step` after ``backward()``.

    >>> import torch, gclip
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> clipper = gclip.Clipper(model, "norm(max_norm=1)")
    >>> model(torch.tensor([[3.0, 4.0]])).sum().backward()
    >>> if not clipper.step().skipped:
    ...     optimizer.step()
    >>> model.weight.grad
    tensor([[0.6000, 0.8000]])

    (`gclip.attach` leaves skipped steps out by itself.)

    Args:
        parameters: a module, its ``named_parameters()`` or its ``parameters()``. A parameter
            listed twice counts once. A module is followed: parameters that it gets later (a new
            head, a sharded one) are clipped like the others, those that it loses no longer count.
            A list of parameters stays what it is.
        strategy: a spelling (``"norm(max_norm=1)"``), a `Strategy`, a `chain`, or a mapping from
            name patterns to these; the first pattern that matches a parameter decides.
        exclude: name patterns (``*`` and ``?``) of parameters never to clip.
        nonfinite: what to do with a step in which a gradient is inf or NaN. ``skip``: its
            gradients become zero and the report says ``skipped``, so that the loop can leave the
            optimizer's step out; memory stays untouched. ``raise``: a `FloatingPointError`
            that names the parameters, gradients untouched. ``keep``: clip what can be: clamps
            cut elements as ``torch.clamp`` does (inf to the bound, NaN stays), groups whose norm
            is finite are clipped, others stay as they are; memory stays untouched.
        record: keep a `Record` of every step (24 bytes a step).
        optimizer: for strategies that need its learning rate (``larc``, ``update_rms``), and for
            those of the side ``update``: its state is put back when an update is skipped.
        total_steps: how many steps the run will have, for schedules that do not say it.
        model: the module, where `parameters` is not it: its classes tell what a unit is
            (`gclip.clipping.units`), and single examples need it.
        max_consecutive_skips: how many steps in a row may be skipped before something is said;
            None for any number.
        on_max_skips: ``warn`` then, or ``raise`` a `FloatingPointError`.
        unit_dims: for the scope ``unit``, name patterns to the dimension along which a
            parameter's units lie (None: it is one), where it is not what `gclip.clipping.units`
            says.

    Frozen parameters (``requires_grad=False``) do not count, whatever they hold, until they are
    trained again. Those that have no gradient in a step count with their weights and sizes in
    limits that they share: their gradient is zero.

    Under ``torch.compile`` the graph breaks where the strategy is asked; the number of graphs does
    not grow with the steps.

    Raises:
        UsageError: unknown strategies, patterns that match nothing, no parameters.
    """

    def __init__(
        self,
        parameters: Parameters | ParameterSource,
        strategy: Spec,
        *,
        exclude: Sequence[str] = (),
        nonfinite: Nonfinite = "skip",
        record: bool = True,
        optimizer: torch.optim.Optimizer | None = None,
        total_steps: int | None = None,
        model: nn.Module | None = None,
        max_consecutive_skips: int | None = MOST_SKIPS,
        on_max_skips: OnSkips = "warn",
        unit_dims: UnitDims | None = None,
    ) -> None:
        super().__init__(
            parameters,
            ClipperOptions(
                strategy=strategy, exclude=exclude, unit_dims=unit_dims, optimizer=optimizer,
                total_steps=total_steps, model=parameters if model is None else model,
                nonfinite=nonfinite, recording=record,
            ),
        )  # fmt: skip
        self.report: ClipReport | None = None
        self._nonfinite: NonfiniteGradients | None = None
        self._skips = SkipMonitor(max_consecutive_skips, on_max_skips)
        self._reader = GradientReader()

    # Decorated, and not by a context inside: a doctor reaches steps that are bound already.
    @torch.no_grad()
    def step(self) -> ClipReport:
        """Measure the gradients, ask the strategies, clip in place.

        Call it after ``backward()`` (and after a GradScaler's ``unscale_``), before
        ``optimizer.step()``; once per optimizer step, not per micro-batch.

        Returns:
            A `ClipReport` whose tensors stay on the device: nothing here waits for a GPU.

        Raises:
            FloatingPointError: a gradient is not finite and the policy is ``raise``.
        """
        collect, ask, finish = self._gradients, self._ask, self._finish
        measure, clip, compiling = self._measure, self._clip, torch.compiler.is_compiling()
        if compiling:
            from gclip.clipping.graph_breaks import outside

            collect, ask, finish = (partial(outside, each) for each in (collect, ask, finish))
        grads = collect()
        if isinstance(grads, ClipReport):  # there was nothing to measure
            return grads
        if compiling and not self._reader.strided:
            # Compilers know neither sparse tensors nor other processes.
            measure, clip, compiling = partial(outside, measure), partial(outside, clip), False
        flags: Any = None
        if self._alone is not None and self._reader.plain and not compiling:
            flags = self._clamp_at_once(self._alone, grads)
            if flags is not None:
                return finish(flags)
        for fresh, parts in self._rounds:
            measure(fresh, grads)
            flags = ask(fresh, parts, grads, flags, compiling)
            clip(parts, flags.zero, grads)
        return finish(flags)

    # -- the three verbs ---------------------------------------------------------------------

    def _measure(self, parts: list[BoundStrategy], grads: list[Tensor | None]) -> None:
        for part in parts:
            part.take(grads, plain=self._reader.plain)
            part.measure()

    def _ask(
        self,
        fresh: list[BoundStrategy],
        parts: list[BoundStrategy],
        grads: list[Tensor | None],
        flags: StepFlags | None,
        between: bool,
    ) -> StepFlags:
        """Ask each strategy, after `fresh` ones have been measured, and let it learn.

        `between` compiled graphs, what comes from one is copied, and what goes into one prepared.
        """
        if between:
            for part in fresh:
                part.leave_graph()
        finites = [part.recheck() for part in fresh]
        if flags is None:
            finite, skip = all_true(finites), None
            self._nonfinite = nonfinite_gradients(self.names, grads, finite, fresh)
            if self.nonfinite == "raise" and not bool(finite):
                names = nonfinite_names(self.names, grads)
                raise FloatingPointError(nonfinite_sentence(self._step, names))
            learns = finite
            if self._bound.remembers:
                learns = learnable(finite, self._on_gradients)
        else:
            finite, learns, skip, _ = flags
        writes = False
        if [part for part in parts if part.writes_at_once]:
            self._separate(parts, grads)
        for part in parts:
            wants_skip = part.ask(self._step, learns if skip is None else learns & ~skip)
            writes = writes or part.writes
            if wants_skip is not None:
                skip = either(skip, wants_skip)
        if writes:
            self._separate(parts, grads)
        if between:
            for part in parts:
                part.enter_graph()
        if parts is not self._rounds[-1][1]:
            return StepFlags(finite, learns, skip, None)
        if finite is not ALL_FINITE:
            skip = self._skip_nonfinite(skip, finite)
        untouched = skip is None or self._fused or (on_host(skip) and not bool(skip))
        return StepFlags(finite, learns, skip, None if untouched else skip)

    def _clip(
        self, parts: list[BoundStrategy], zero: Tensor | None, grads: list[Tensor | None]
    ) -> None:
        """Change the gradients as decided; set all to zero where `zero`."""
        for part in parts:
            part.clip()
        if zero is not None:
            zero_where(zero, stored_elements(grads))

    def _clamp_at_once(self, part: BoundClamp, grads: list[Tensor | None]) -> StepFlags | None:
        """All three at once, where one clamp at a number is all that there is to do, else None."""
        present = cast(list[Tensor], grads)  # the reader found them plain
        limit = part.fixed_limit(self._step, present)
        if limit is None:
            return None
        self._separate([part], grads)
        part.clamp_at_once(present, limit)
        finite, skip = all_finite(part.measured), None
        self._nonfinite = None
        if finite is not ALL_FINITE:
            self._nonfinite = NonfiniteGradients(known=part.nonfinite_names())
            skip = self._skip_nonfinite(None, finite)
            if skip is not None:
                zero_where(skip, stored_elements(grads))
        return StepFlags(finite, finite, skip, None)

    def _finish(self, flags: StepFlags) -> ClipReport:
        if self._samples is not None:
            self._samples.settle(flags.finite)
        self._step += 1
        recording = self._options.recording
        parts, record = self._bound.shown, self.record if recording else None
        if self._updates is not None:  # of the gradients only: the rest waits for the update
            self._pending = (flags.finite, flags.skip)
            parts, record = self._on_gradients, None
        self.report = step_report(
            parts, flags.finite, flags.skip,
            totals=recording, record=record, nonfinite=self._nonfinite,
        )  # fmt: skip
        if self._updates is None:
            self._complete(self.report)
        self._skips.note(flags.skip)
        return self.report

    def _ask_updates(self, step: int, learns: Tensor) -> Tensor | None:
        updates: UpdateClipper = self._updates
        if self._bound.remembers:
            learns = learnable(learns, updates.parts)
        return updates.clip(step, learns)

    def _report_update(self, finite: Tensor, skip: Tensor | None) -> None:
        record = self.record if self._options.recording else None
        self.report = step_report(
            self._updates.parts, finite, skip,
            totals=record is not None, record=record, nonfinite=self._nonfinite,
        )  # fmt: skip
        self._complete(self.report)

    # -- inside ------------------------------------------------------------------------------

    def _gradients(self) -> list[Tensor | None] | ClipReport:
        """This step's gradients, one a parameter; the report where that is all."""
        if self._source.changed():
            self._follow()
        if self._unmeasured:
            if not clamp_unmeasured(self._unmeasured, self._step, self.params):
                return self._nothing()
            self._step += 1
            self.report = ClipReport(None, ALL_FINITE, NOT_FINITE)
            return self.report
        if self._pending is not None or self._samples is not None:
            self._refuse_misuse()
        grads = self._reader.read(self.params, sharded=self._bound.sharded)
        return self._nothing() if grads is None else grads

    def _separate(self, parts: list[BoundStrategy], grads: list[Tensor | None]) -> None:
        """Gradients that share memory get their own, before any is written to."""
        reader = self._reader
        if reader.aliased.separate(self.params, grads, strided=reader.strided):
            grads[:] = gradients(self.params)
            for part in self._on_gradients:
                if part.first or part in parts:
                    part.take(grads)

    def _nothing(self) -> ClipReport:
        """No gradient anywhere: nothing to clip."""
        self._warn_no_gradients(self._source.hint, stacklevel=5)
        self.report = ClipReport([], ALL_FINITE, NOT_FINITE)
        return self.report
