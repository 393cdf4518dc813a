"""The clipper: measure → ask → clip, for the parameters of a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NoReturn, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.decide import Decision
from gclip.elementwise import make
from gclip.errors import UsageError, choose
from gclip.norms import NO, YES, on_host
from gclip.parameters import Parameters, Spec, assign, collect, resolve
from gclip.part import Part
from gclip.rates import Rates
from gclip.record import Record
from gclip.report import ClipReport, Stage
from gclip.samples import Loss, Samples
from gclip.scopes import Groups, check_layers
from gclip.sharded import align, is_sharded, local, refuse_flat, whole
from gclip.sparse import coalesce, stored
from gclip.state import copied
from gclip.strategy import SIDES, Strategy
from gclip.updates import Updates

Nonfinite: TypeAlias = Literal["skip", "raise", "keep"]
NONFINITE = ("skip", "raise", "keep")


class Clipper:
    """Clips a model's gradients by a strategy: call `step` after ``backward()``.

    ::

        clipper = gclip.Clipper(model, "agc", exclude=["head.*"])
        loss.backward()
        clipper.step()
        optimizer.step()

    Args:
        parameters: a module, its ``named_parameters()`` or its ``parameters()``. A parameter
            listed twice counts once.
        strategy: a spelling (``"norm(max_norm=1)"``), a `Strategy`, a `chain`, or a mapping from
            name patterns to these; the first pattern that matches a parameter decides.
        exclude: name patterns (``*`` and ``?``) of parameters never to clip.
        nonfinite: what to do with a step in which a gradient is inf or NaN. ``skip``: its
            gradients become zero, memory stays untouched. ``raise``: a `FloatingPointError`
            that names the parameters, gradients untouched. ``keep``: clip as if nothing were;
            memory stays untouched.
        record: keep a `Record` of every step (20 bytes a step).
        optimizer: for strategies that need its learning rate (``larc``, ``update_rms``).
        total_steps: how many steps the run will have, for schedules that do not say it.
        model: the module, where `parameters` is not it and single examples are clipped.

    Raises:
        UsageError: unknown strategies, patterns that match nothing, no parameters.
    """

    def __init__(
        self,
        parameters: Parameters,
        strategy: Spec,
        *,
        exclude: Sequence[str] = (),
        nonfinite: Nonfinite = "skip",
        record: bool = True,
        optimizer: torch.optim.Optimizer | None = None,
        total_steps: int | None = None,
        model: nn.Module | None = None,
    ) -> None:
        named = collect(parameters)
        refuse_flat(named.params)
        choose(nonfinite, NONFINITE, "nonfinite policy")
        self.nonfinite: Nonfinite = nonfinite
        self.record = Record()
        self.names, self.params = named.names, named.params
        self._recording = record
        self._sharded = any(map(is_sharded, named.params))
        self._parts: list[Part] = []  # on gradients
        updates: list[Part] = []
        samples: list[Part] = []
        homes: dict[str, list[Part]] = {"update": updates, "sample": samples}
        for strategies, places in assign(named.names, strategy, exclude):
            names = [named.names[i] for i in places]
            params = [named.params[i] for i in places]
            rates = None if optimizer is None else Rates(optimizer, params)
            for side, mine in _by_side(strategies).items():
                for depth, each in enumerate(mine):
                    if each.scope == "layer":
                        check_layers(names, named.have_names)
                    part = make(each, names, params, places, rates=rates, total_steps=total_steps)
                    part.first, part.last = depth == 0, depth == len(mine) - 1
                    homes.get(side, self._parts).append(part)
        self._updates = Updates(updates, named.params) if updates else None
        self._samples = _samples(samples, model or parameters) if samples else None
        self._all = [*self._parts, *samples, *updates]
        # The record is about what acts last. What only checks for finite gradients is not shown.
        self._shown = updates or samples or self._parts
        self._result: tuple[Tensor, Tensor | None] | None = None
        self.report: ClipReport | None = None
        # What a clamp at a constant needs no norm for is not measured when nobody looks.
        self._unmeasured = (
            nonfinite == "keep"
            and not record
            and self._all == self._parts
            and not self._sharded
            and all(p.constant_clamp for p in self._parts)
        )
        self._step = 0
        self._warned = False

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
        if self._unmeasured:
            return self._clamp_only()
        self._expect()
        if self._sharded:
            align(self.params)
        grads = [p.grad for p in self.params]
        if any(g is not None and g.is_sparse for g in grads):
            coalesce(self.params)
            grads = [p.grad for p in self.params]
        if not any(g is not None for g in grads):
            return self._nothing()
        for part in self._parts:
            if part.first:
                part.take(grads)
        finite = self._measure()
        if self.nonfinite == "raise" and not bool(finite):
            self._refuse(grads)
        skip = self._clip(finite, grads)
        if self.nonfinite == "skip" and finite is not YES:
            skip = ~finite if skip is None else skip | ~finite
        if skip is not None and not any(part.folds for part in self._parts):
            _zero_if(skip, self._stored(grads))
        if self._samples is not None:
            self._samples.settle(self._recording)
        self._step += 1
        self.report = self._report(finite, skip, waits=self._updates is not None)
        return self.report

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Around ``optimizer.step()``: clip the update, for strategies of the side ``update``.

        ::

            clipper.step()
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

        Args:
            inputs, targets: ``(examples, …)``.
            loss: of a batch of one, a scalar.
            chunk: how many examples' gradients are held at once; all by default.

        Returns:
            The mean loss, times `scale`.

        Raises:
            UsageError: no strategy has the side ``sample``; or the model has batch norm.
        """
        if self._samples is None:
            raise UsageError(
                "backward() is for strategies that clip single examples, such as 'per_sample' or "
                "'norm(side=sample)'; with others, call loss.backward()"
            )
        return self._samples.add(inputs, targets, loss, step=self._step, scale=scale, chunk=chunk)

    def state_dict(self) -> dict[str, Any]:
        """Every strategy's memory, the step count and the record, as tensors and numbers.

        Loads with ``torch.load(weights_only=True)``.
        """
        return {
            "step": self._step,
            "strategies": [str(part.strategy) for part in self._all],
            "memory": [copied(part.memory) for part in self._all],
            "record": self.record.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another clipper with the same strategies and parameters stopped.

        Raises:
            UsageError: the state belongs to other strategies, or to other parameters.
        """
        mine = [str(part.strategy) for part in self._all]
        if state["strategies"] != mine:
            raise UsageError(
                f"the state is of {', '.join(state['strategies'])}, but this clipper has "
                f"{', '.join(mine)}"
            )
        for part, memory in zip(self._all, state["memory"], strict=True):
            part.load(memory)
        self._step = int(state["step"])
        self.record.load_state_dict(state["record"])

    def __repr__(self) -> str:
        parts = ", ".join(f"{p.strategy} on {p.groups.count} groups" for p in self._all)
        return f"Clipper({parts}; {self._step} steps)"

    # -- the three verbs ---------------------------------------------------------------------

    def _measure(self) -> Tensor:
        """Measure the first strategy of each parameter; are all gradients finite? ``(1,)``."""
        firsts = [part for part in self._parts if part.first]
        found = [part.measure(self._recording) for part in firsts]
        if all(each is YES for each in found):
            return YES
        return found[0] if len(found) == 1 else _cat(found).all().view(1)

    def _clip(self, finite: Tensor, grads: list[Tensor | None]) -> Tensor | None:
        """Ask each strategy, clip, let it learn; whether any wants the step skipped, ``(1,)``."""
        return self._ask_and_clip(self._parts, self._step, finite, grads)

    def _ask_and_clip(
        self, parts: list[Part], step: int, finite: Tensor, grads: list[Tensor | None]
    ) -> Tensor | None:
        skip: Tensor | None = None
        for part in parts:
            if not part.first:
                part.take(grads)
                part.measure(self._recording)
            wish = part.ask(step, finite if skip is None else finite & ~skip)
            part.clip(self._recording)
            if wish is not None:
                skip = wish if skip is None else skip | wish.to(skip.device)
        return skip

    def _clip_update(self, updates: Updates, finite: Tensor, skip: Tensor | None) -> None:
        found = updates.measure(self._recording)
        if self.nonfinite == "raise" and not bool(found):
            raise FloatingPointError(
                f"the optimizer's update is not finite at step {self._step - 1}"
            )
        # What a skipped step leaves is no update to learn from.
        fine = found if skip is None else found & ~skip.to(found.device)
        grads: list[Tensor | None] = updates.all_deltas
        fine = fine if fine is YES else fine & finite
        # `step` has counted this step already.
        wish = self._ask_and_clip(updates.parts, self._step - 1, fine, grads)
        if self.nonfinite == "skip" and found is not YES:
            wish = ~found if wish is None else wish | ~found
        if wish is not None:
            _zero_if(wish, self._stored(grads))
        updates.settle()
        if wish is not None:
            skip = wish if skip is None else skip | wish.to(skip.device)
        self.report = self._report(finite, skip, waits=False)

    def _clamp_only(self) -> ClipReport:
        found = [part.clamp_unmeasured(self._step) for part in self._parts]
        if not any(found):
            return self._nothing()
        self._step += 1
        self.report = ClipReport(None, YES, NO)
        return self.report

    # -- inside ------------------------------------------------------------------------------

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

    def _report(self, finite: Tensor, skip: Tensor | None, *, waits: bool) -> ClipReport:
        """The step's report and record; where it `waits` for the update, of the gradients only."""
        if waits:
            self._result = (finite, skip)
        shown = self._parts if waits else self._shown
        done = [(part.strategy, part.groups, part.made) for part in shown]
        if self._recording and not waits:
            self.record.add(
                _cat([part.total_before for part in shown if part.first]),
                _cat([part.total_after for part in shown if part.last]),
                _cat([_by_group(made.limit) for _, _, made in done]),
                _cat([_by_group(made.clipped) for _, _, made in done]),
                finite,
            )
        stages = partial(_stages, done)
        if skip is None:
            skip = NO if finite is YES else torch.zeros_like(finite)
        return ClipReport(stages, finite, skip)

    def _nothing(self) -> ClipReport:
        """No gradient anywhere: nothing to clip, and most likely a mistake in the loop."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                "no parameter has a gradient, so nothing was clipped: call clipper.step() after "
                "backward() and before zero_grad()",
                stacklevel=4,
            )
        self.report = ClipReport([], YES, NO)
        return self.report


def _by_side(strategies: tuple[Strategy, ...]) -> dict[str, tuple[Strategy, ...]]:
    """A chain's strategies by what they work on; gradients are always checked."""
    sides = {side: tuple(s for s in strategies if s.side == side) for side in SIDES}
    if len(sides["sample"]) > 1:
        raise UsageError("one strategy may clip single examples, but this chain has several")
    return {**sides, "gradient": sides["gradient"] or resolve("none")}


def _samples(parts: list[Part], model: object) -> Samples:
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{parts[0].strategy} clips single examples and needs the model itself: "
            "gclip.Clipper(model, …)"
        )
    known = dict(model.named_parameters())
    if any(
        known.get(n) is not p
        for part in parts
        for n, p in zip(part.groups.names, part.params, strict=True)
    ):
        raise UsageError(
            f"{parts[0].strategy} clips single examples and finds their gradients by the "
            "parameters' names: pass the model itself or its named_parameters()"
        )
    if any(map(is_sharded, model.parameters())):
        raise UsageError(
            f"{parts[0].strategy} clips single examples, whose gradients cannot be had from "
            "parameters spread over processes (DTensor)"
        )
    return Samples(parts, model)


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


def _stages(done: list[tuple[Strategy, Groups, Decision]]) -> list[Stage]:
    return [
        Stage(
            strategy=str(strategy), labels=groups.labels, norm=made.norm, limit=made.limit,
            clipped_norm=made.clipped_norm, clipped=made.clipped,
        )
        for strategy, groups, made in done
    ]  # fmt: skip
