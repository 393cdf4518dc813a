"""The clipper: measure → ask → clip, for the parameters of a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.clipping.assignment import PartState, arrange, check_same, read_state, saved_state
from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.bound_transform import make
from gclip.clipping.dtensor import align, is_sharded, local, refuse_flat, whole
from gclip.clipping.gradients import Apart, gradients
from gclip.clipping.groups import Groups, check_layers
from gclip.clipping.hyperparameters import OptimizerHyperparameters
from gclip.clipping.norms import ALL_FINITE, NOT_FINITE, any_positive
from gclip.clipping.parameter_sources import ParameterSource, differing, source_of
from gclip.clipping.parameters import Named, Parameters, Spec, assign
from gclip.clipping.per_sample.bound_strategy import BoundSampleStrategy
from gclip.clipping.per_sample.checks import Loss
from gclip.clipping.per_sample.clipper import PerSampleClipper
from gclip.clipping.record import Record
from gclip.clipping.report import ClipReport, Stage
from gclip.clipping.rules import Decision
from gclip.clipping.skip_monitor import MOST_SKIPS, OnSkips, SkipWatch
from gclip.clipping.sparse import coalesce, stored
from gclip.clipping.units import UnitDims, axes
from gclip.clipping.update import UpdateClipper
from gclip.core.host import on_host
from gclip.core.strategy import Strategy
from gclip.errors import UsageError, choose

Nonfinite: TypeAlias = Literal["skip", "raise", "keep"]
NONFINITE = ("skip", "raise", "keep")


class Clipper:
    """Clips a model's gradients by a strategy: call `step` after ``backward()``.

    ::

        clipper = gclip.Clipper(model, "agc", exclude=["head.*"])
        loss.backward()
        if not clipper.step().skipped:
            optimizer.step()

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
        choose(nonfinite, NONFINITE, "nonfinite policy")
        self.nonfinite: Nonfinite = nonfinite
        self.record = Record()
        self._recording = record
        self._spec, self._exclude, self._unit_dims = strategy, exclude, unit_dims
        self._optimizer, self._total_steps = optimizer, total_steps
        self._model = model if model is not None else parameters
        self._source = source_of(parameters)
        self._skips = SkipWatch(max_consecutive_skips, on_max_skips)
        self._result: tuple[Tensor, Tensor | None] | None = None
        self.report: ClipReport | None = None
        self._step = 0
        self._warned = self._folds = False
        self._apart = Apart()
        self._strided = True  # this step's gradients are neither sparse nor spread over processes
        self._plain = False  # nor is any missing
        named = self._source.read()
        self._arrange(named, self._assigned(named), grown=False)

    def _assigned(self, named: Named, grown: bool = False) -> list[Any]:
        """Each pattern's strategies, with the places of their parameters."""
        return assign(named.names, self._spec, self._exclude, given=named.given, grown=grown)

    def _arrange(
        self,
        named: Named,
        assigned: list[Any],
        earlier: Sequence[PartState] = (),
        *,
        grown: bool = True,
    ) -> None:
        """Make the parts for these parameters; they go on with the memory of `earlier` ones."""
        refuse_flat(named.params)
        self._axes = axes(
            named.names, named.params, self._model, self._unit_dims, given=named.given, grown=grown
        )
        parts = arrange(named, assigned, partial(self._part, named), earlier)
        updates, samples, own = (
            [each for place, group in parts.items() if place[1] == side for each in group]
            for side in ("update", "sample", "gradient")
        )
        skips = self.nonfinite != "keep" or any(
            part.strategy.rule == "skip" for part in [*own, *updates]
        )
        self._updates = (
            UpdateClipper(updates, named.params, self._optimizer, skips) if updates else None
        )
        per_example = [part for part in samples if isinstance(part, BoundSampleStrategy)]
        self._samples = _samples(per_example, self._model, self._recording) if per_example else None
        self._named, self.names, self.params = named, named.names, named.params
        self._parts, self._by_place = own, parts
        self._rounds = _rounds(own)
        self._all = [*own, *samples, *updates]
        self._sharded = any(map(is_sharded, named.params))
        self._remembers = any(part.remembers for part in self._all)
        for part in self._all:
            part.folds = self._folds
        # The record is about what acts last. What only checks for finite gradients is not shown.
        self._shown = updates or samples or own
        # What a clamp at a constant needs no norm for is not measured when nobody looks.
        self._unmeasured = (
            self.nonfinite == "keep"
            and not self._recording
            and self._all == own
            and not self._sharded
            and all(p.constant_clamp for p in own)
        )

    def _part(
        self,
        named: Named,
        strategy: Strategy,
        names: list[str],
        params: list[Tensor],
        places: list[int],
    ) -> BoundStrategy:
        if strategy.scope == "layer":
            check_layers(names, named.have_names)
        rates = (
            None if self._optimizer is None else OptimizerHyperparameters(self._optimizer, params)
        )
        return make(
            strategy, names, params, places, axes=[self._axes[i] for i in places], rates=rates,
            total_steps=self._total_steps, keep=self.nonfinite == "keep",
        )  # fmt: skip

    def _follow(self) -> None:
        """The parameters may have become others: work on those that are there now."""
        named = self._source.read()
        if not differing(self._named, named):
            return
        if self._samples is not None and self._samples.waiting:
            raise UsageError(
                "the model got other parameters between clipper.backward() and clipper.step()"
            )
        self.record.flush()  # the steps that wait have other groups
        self._arrange(named, self._assigned(named, grown=True), self._states())

    def _states(self) -> list[PartState]:
        return [
            PartState.of(place, part.strategy, part.groups, part.memory)
            for place, parts in self._by_place.items()
            for part in parts
        ]

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
        if compiling and not self._strided:
            # Compilers know neither sparse tensors nor other processes.
            measure, clip, compiling = partial(outside, measure), partial(outside, clip), False
        asked: Any = None
        for fresh, parts in self._rounds:
            measure(fresh, grads)
            asked = ask(fresh, parts, grads, asked, compiling)
            clip(parts, asked.zero, grads)
        return finish(asked)

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Around ``optimizer.step()``: clip the update, for strategies of the side ``update``.

        ::

            if not clipper.step().skipped:
                with clipper.updating():
                    optimizer.step()

        `gclip.attach` and the trainer do this by themselves. Without such strategies it does
        nothing. Afterwards `report` is complete.
        """
        updates = self._updates
        if updates is None:
            yield
            return
        updates.hold()
        try:
            yield
            if self._result is not None:  # a closure may have called `step` only now
                with torch.no_grad():
                    self._clip_update(updates, *self._result)
        finally:
            updates.drop()
            self._result = None

    @property
    def parts(self) -> tuple[BoundStrategy, ...]:
        """Each strategy at work on its parameters, in the order in which they act."""
        return tuple(self._all)

    def fold(self) -> None:
        """Leave the multiplication by the factor to an optimizer: see `gclip.clipping.fused`."""
        self._folds = True
        for part in self._all:
            part.folds = True

    @property
    def on_updates(self) -> bool:
        """Whether a strategy clips the optimizer's update, so that `updating` is needed."""
        return self._updates is not None

    @property
    def per_sample(self) -> bool:
        """Whether a strategy clips single examples, so that `backward` takes the place of
        ``loss.backward()``."""
        return self._samples is not None

    def backward(
        self,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss = F.cross_entropy,
        *,
        scale: float = 1.0,
        chunk: int | None = None,
    ) -> Tensor:
        """Per-example clipping: add the mean of the clipped examples' gradients to ``.grad``.

        In place of ``loss(model(inputs), targets).backward()``; then `step` as always. Call it
        several times to accumulate, with `scale` each batch's share of the examples.

        Parameters that are frozen or that the loss does not depend on keep their ``.grad``, and
        do not count in norms that they share. Modules that ``torch.func`` cannot take are computed
        one example after another, with a warning; see `gclip.per_sample_gradients`. An example
        whose gradient is not finite makes the step not finite (`nonfinite`), unless the strategy's
        rule is ``skip`` and has left it out.

        Args:
            inputs, targets: ``(examples, …)``, of any dtype that the model and the loss take.
            loss: of a batch of one, one number; a ``reduction`` of mean, sum or none is the same.
            chunk: how many examples' gradients are held at once, each chunk a forward pass of its
                own; all by default.

        Returns:
            The mean loss, times `scale`.

        Raises:
            UsageError: no strategy has the side ``sample``; the model has batch norm; no parameter
                requires a gradient; the model or the loss fails on a batch of one.
        """
        if self._samples is None:
            raise UsageError(
                "backward() is for strategies that clip single examples, such as 'per_sample' or "
                "'norm(side=sample)'; with others, call loss.backward()"
            )
        if not self._samples.waiting and self._source.changed():
            self._follow()
        add = partial(self._samples.add, step=self._step, scale=scale, chunk=chunk)
        if torch.compiler.is_compiling():
            from gclip.clipping.graph_breaks import outside

            add = partial(outside, add)
        return add(inputs, targets, loss)

    def state_dict(self) -> dict[str, Any]:
        """Every strategy's memory by its groups' names, the step count and the record.

        Loads with ``torch.load(weights_only=True)``, and from what
        ``torch.distributed.checkpoint`` has saved.
        """
        return saved_state(self._step, self._states(), self.record)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another clipper with the same strategies and parameters stopped.

        The parameters are found by name, in whatever order they are. Where nothing has been saved
        by name (``parameters()``), by number.

        Raises:
            UsageError: the state belongs to other strategies, or to other parameters.
        """
        step, parts, record = read_state(state)
        assigned = self._assigned(self._named, grown=True)
        check_same(self._named, assigned, parts)
        self._arrange(self._named, assigned, parts)
        self._step = step
        self.record.load_state_dict(record)

    def __repr__(self) -> str:
        parts = ", ".join(f"{p.strategy} on {p.groups.count} groups" for p in self._all)
        return f"Clipper({parts}; {self._step} steps)"

    # -- the three verbs ---------------------------------------------------------------------

    def _measure(self, parts: list[BoundStrategy], grads: list[Tensor | None]) -> None:
        for part in parts:
            part.take(grads, plain=self._plain)
            part.measure()

    def _ask(
        self,
        fresh: list[BoundStrategy],
        parts: list[BoundStrategy],
        grads: list[Tensor | None],
        asked: _Asked | None,
        between: bool,
    ) -> _Asked:
        """Ask each strategy, after `fresh` ones have been measured, and let it learn.

        `between` compiled graphs, what comes from one is copied, and what goes into one prepared.
        """
        if between:
            for part in fresh:
                part.leave_graph()
        found = [part.look_again(self._recording) for part in fresh]
        if asked is None:
            finite = _all(found)
            if self.nonfinite == "raise" and not bool(finite):
                self._refuse(grads)
            memorable, skip = self._memorable(finite, self._parts), None
        else:
            finite, memorable, skip, _ = asked
        writes = False
        for part in parts:
            wish = part.ask(self._step, memorable if skip is None else memorable & ~skip)
            writes = writes or part.writes
            if wish is not None:
                skip = wish if skip is None else skip | wish.to(skip.device)
        if writes:
            self._separate(parts, grads)
        if between:
            for part in parts:
                part.enter_graph(self._recording)
        if parts is not self._rounds[-1][1]:
            return _Asked(finite, memorable, skip, None)
        if self.nonfinite == "skip" and finite is not ALL_FINITE:
            skip = ~finite if skip is None else skip | ~finite
        idle = skip is None or self._folds or (on_host(skip) and not bool(skip))
        return _Asked(finite, memorable, skip, None if idle else skip)

    def _clip(
        self, parts: list[BoundStrategy], zero: Tensor | None, grads: list[Tensor | None]
    ) -> None:
        """Change the gradients as decided; set all to zero where `zero`."""
        for part in parts:
            part.clip(self._recording)
        if zero is not None:
            _zero_if(zero, self._stored(grads))

    def _finish(self, asked: _Asked) -> ClipReport:
        if self._samples is not None:
            self._samples.settle(asked.finite)
        self._step += 1
        waits = self._updates is not None
        self.report = self._report(asked.finite, asked.skip, waits=waits)
        self._skips.note(asked.skip)
        return self.report

    def _memorable(self, finite: Tensor, parts: list[BoundStrategy]) -> Tensor:
        """Whether the step may enter memory: it is finite, and not all of it is zero, ``(1,)``.

        A step of zeros says nothing about gradients. Checkpoint tools make one, to have an
        optimizer's state created.
        """
        if not self._remembers:
            return finite
        there = []
        for part in parts:
            if part.first:
                each = any_positive(part.measured)
                if each is ALL_FINITE:  # most steps: nothing else to look at
                    return finite
                there.append(each)
        return finite & _cat(there).any().view(1).to(finite.device)

    def _clip_update(self, updates: UpdateClipper, finite: Tensor, skip: Tensor | None) -> None:
        if torch.compiler.is_compiling():
            from gclip.clipping.graph_breaks import outside

            outside(self._clip_update, updates, finite, skip)
            return
        found = updates.measure(self._recording)
        if self.nonfinite == "raise" and not bool(found):
            updates.undo()
            raise FloatingPointError(
                f"the optimizer's update is not finite at step {self._step - 1}"
            )
        # What a skipped step leaves is no update to learn from.
        fine = found if skip is None else found & ~skip.to(found.device)
        grads: list[Tensor | None] = updates.all_deltas
        fine = fine if fine is ALL_FINITE else fine & finite
        fine = self._memorable(fine, updates.parts)
        wish: Tensor | None = None
        for part in updates.parts:
            if not part.first:
                part.take(grads)
                part.measure()
                part.look_again(self._recording)
            # `step` has counted this step already.
            asked = part.ask(self._step - 1, fine if wish is None else fine & ~wish)
            part.clip(self._recording)
            if asked is not None:
                wish = asked if wish is None else wish | asked.to(wish.device)
        if self.nonfinite == "skip" and found is not ALL_FINITE:
            wish = ~found if wish is None else wish | ~found
        if wish is not None:
            _zero_if(wish, self._stored(grads))
            skip = wish if skip is None else skip | wish.to(skip.device)
        updates.settle(skip)
        self.report = self._report(finite, skip, waits=False)

    def _clamp_only(self) -> ClipReport:
        if len(self._parts) > 1:  # at one limit for all, twice is once
            self._separate_unmeasured()
        try:
            found = [part.clamp_unmeasured(self._step) for part in self._parts]
        except RuntimeError:  # torch does not write to elements that lie in one place
            if not self._separate_unmeasured():
                raise
            found = [part.clamp_unmeasured(self._step) for part in self._parts]
        if not any(found):
            return self._nothing()
        self._step += 1
        self.report = ClipReport(None, ALL_FINITE, NOT_FINITE)
        return self.report

    # -- inside ------------------------------------------------------------------------------

    def _gradients(self) -> list[Tensor | None] | ClipReport:
        """This step's gradients, one a parameter; the report where that is all."""
        if self._source.changed():
            self._follow()
        if self._unmeasured:
            return self._clamp_only()
        self._expect()
        if self._sharded:
            align(self.params)
        grads = gradients(self.params)
        there = [grad for grad in grads if grad is not None]
        sparse = [grad for grad in there if grad.is_sparse]
        if sparse:
            coalesce(self.params)
            grads = gradients(self.params)
        self._strided = not (sparse or self._sharded)
        self._plain = self._strided and len(there) == len(grads)
        return grads if there else self._nothing()

    def _separate(self, parts: list[BoundStrategy], grads: list[Tensor | None]) -> None:
        """Gradients that share memory get their own, before any is written to."""
        if self._apart.settle(self.params, grads, strided=self._strided):
            grads[:] = gradients(self.params)
            for part in self._parts:
                if part.first or part in parts:
                    part.take(grads)

    def _separate_unmeasured(self) -> bool:
        grads = gradients(self.params)
        strided = not any(grad is not None and grad.is_sparse for grad in grads)
        return self._apart.settle(self.params, grads, strided=strided)

    def _stored(self, grads: list[Tensor | None]) -> list[Tensor]:
        """All the elements that this process stores, to be changed in place."""
        there = [stored(grad) for grad in grads if grad is not None]
        return [local(grad) for grad in there] if self._sharded else there

    def _refuse(self, grads: list[Tensor | None]) -> NoReturn:
        bad = [
            name
            for name, grad in zip(self.names, grads, strict=True)
            if grad is not None and not bool(torch.isfinite(stored(whole(grad))).all())
        ]
        shown = ", ".join(bad[:10]) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
        raise FloatingPointError(
            f"gradients are not finite at step {self._step}: {shown or 'their norm overflows'}"
        )

    def _expect(self) -> None:
        """What the loop should have done since the last step."""
        evaluating = self._updates is not None and self._updates.held  # a closure, once more
        if self._result is not None and not evaluating and self._left_out():
            with self.updating():  # the loop has left the skipped step out, as it should
                pass
        if self._result is not None and not evaluating:
            raise UsageError(
                "the last update was not clipped: write `with clipper.updating(): "
                "optimizer.step()`, or use gclip.attach(optimizer, …)"
            )
        if self._samples is not None and not self._samples.waiting:
            raise UsageError(
                "this clipper works on single examples: call clipper.backward(inputs, targets, "
                "loss) in place of loss.backward()"
            )

    def _left_out(self) -> bool:
        """Whether the last step's gradients were skipped, so that no update was to come."""
        skip = None if self._result is None else self._result[1]
        return skip is not None and bool(skip)

    def _report(self, finite: Tensor, skip: Tensor | None, *, waits: bool) -> ClipReport:
        """The step's report and record; where it `waits` for the update, of the gradients only."""
        if waits:
            self._result = (finite, skip)
        shown = self._parts if waits else self._shown
        done = [(part.strategy, part.groups, part.made) for part in shown]
        if skip is None:
            skip = NOT_FINITE if finite is ALL_FINITE else torch.zeros_like(finite)
        stages = partial(_stages, done)
        if not self._recording:  # a clamp's totals are then not measured
            return ClipReport(stages, finite, skip)
        before = [part.total_before for part in shown if part.first]
        after = [part.total_after for part in shown if part.last]
        if not waits:
            self.record.add(
                _cat(before),
                _cat(after),
                _cat([_by_group(made.limit) for _, _, made in done]),
                _cat([_by_group(made.clipped) for _, _, made in done]),
                finite,
                skip,
            )
        return ClipReport(stages, finite, skip, partial(_totals, before, after))

    def _nothing(self) -> ClipReport:
        """No gradient anywhere: nothing to clip, and most likely a mistake in the loop."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                "no parameter has a gradient, so nothing was clipped: call clipper.step() after "
                "backward() and before zero_grad()" + self._source.hint,
                stacklevel=5,
            )
        self.report = ClipReport([], ALL_FINITE, NOT_FINITE)
        return self.report


class _Asked(NamedTuple):
    """What strategies have said so far in a step. All are bool ``(1,)``.

    Attributes:
        finite: whether all gradients are.
        memorable: whether the step may enter memory.
        skip: whether any wants the step skipped; None: no.
        zero: whether all gradients are to become zero now; None where the host knows: no.
    """

    finite: Tensor
    memorable: Tensor
    skip: Tensor | None
    zero: Tensor | None


def _rounds(parts: list[BoundStrategy]) -> list[tuple[list[BoundStrategy], list[BoundStrategy]]]:
    """The parts in their order, cut where one works on what the one before it leaves.

    Each entry has those to measure beforehand, and those to ask and apply then.
    """
    firsts = [part for part in parts if part.first]
    rounds: list[tuple[list[BoundStrategy], list[BoundStrategy]]] = [(firsts, [])]
    for part in parts:
        if part.first:
            rounds[-1][1].append(part)
        else:
            rounds.append(([part], [part]))
    return rounds


def _all(found: list[Tensor]) -> Tensor:
    """Whether all are true, ``(1,)``; `ALL_FINITE` itself where all of them are."""
    if len(found) == 1:
        return found[0]
    return ALL_FINITE if all(each is ALL_FINITE for each in found) else _cat(found).all().view(1)


def _samples(parts: list[Any], model: object, recording: bool) -> PerSampleClipper:
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{parts[0].strategy} clips single examples and needs the model itself: "
            "gclip.Clipper(model, …)"
        )
    known = set(map(id, model.parameters()))
    if any(id(param) not in known for part in parts for param in part.params):
        raise UsageError(
            f"{parts[0].strategy} clips single examples of a model, but not all parameters given "
            "are that model's: pass the model itself, or parameters of it with model=model"
        )
    if any(map(is_sharded, model.parameters())):
        raise UsageError(
            f"{parts[0].strategy} clips single examples, whose gradients cannot be had from "
            "parameters spread over processes (DTensor)"
        )
    return PerSampleClipper(parts, model, recording)


def _by_group(values: Tensor) -> Tensor:
    """One entry a group; of single examples, ``(examples, groups)``, the mean over them."""
    return values if values.ndim == 1 else values.float().mean(dim=0)


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([p.to(parts[0].device) for p in parts])


def _zero_if(skip: Tensor, grads: list[Tensor]) -> None:
    """Set the gradients to zero where `skip` is true, without waiting for a GPU."""
    if on_host(skip):
        if bool(skip):
            torch._foreach_zero_(grads)
        return
    for grad in grads:  # a factor of 0 would leave NaN behind
        grad.masked_fill_(skip.view(()).to(grad.device), 0)


def _totals(before: list[Tensor], after: list[Tensor]) -> tuple[Tensor, Tensor]:
    return _cat(before), _cat(after)


def _stages(done: list[tuple[Strategy, Groups, Decision]]) -> list[Stage]:
    return [
        Stage(
            strategy=str(strategy), labels=groups.labels, norm=made.norm, limit=made.limit,
            clipped_norm=made.clipped_norm, clipped=made.clipped,
        )
        for strategy, groups, made in done
    ]  # fmt: skip
