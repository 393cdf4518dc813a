"""The clipper: measure → ask → clip, for the parameters of a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NoReturn, TypeAlias

import torch
from torch import Tensor

from gclip.decide import Decision
from gclip.errors import UsageError, choose
from gclip.norms import NO, YES, on_host
from gclip.parameters import Parameters, Spec, assign, collect
from gclip.part import Part
from gclip.record import Record
from gclip.report import ClipReport, Stage
from gclip.scopes import Groups, check_layers
from gclip.state import copied
from gclip.strategy import Strategy

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
    ) -> None:
        named = collect(parameters)
        choose(nonfinite, NONFINITE, "nonfinite policy")
        self.nonfinite: Nonfinite = nonfinite
        self.record = Record()
        self.names, self.params = named.names, named.params
        self._recording = record
        self._parts: list[Part] = []
        for strategies, places in assign(named.names, strategy, exclude):
            names = [named.names[i] for i in places]
            params = [named.params[i] for i in places]
            for depth, each in enumerate(strategies):
                if each.scope == "layer":
                    check_layers(names, named.have_names)
                part = Part(each, names, params, places)
                part.first, part.last = depth == 0, depth == len(strategies) - 1
                self._parts.append(part)
        # What a clamp at a constant needs no norm for is not measured when nobody looks.
        self._unmeasured = (
            nonfinite == "keep" and not record and all(p.constant_clamp for p in self._parts)
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
        grads = [p.grad for p in self.params]
        if not any(g is not None for g in grads):
            return self._nothing()
        for part in self._parts:
            part.take(grads)
        finite = self._measure()
        if self.nonfinite == "raise" and not bool(finite):
            self._refuse(grads)
        skip = self._clip(finite)
        if self.nonfinite == "skip" and finite is not YES:
            skip = ~finite if skip is None else skip | ~finite
        if skip is not None:
            _zero_if(skip, [grad for grad in grads if grad is not None])
        self._step += 1
        return self._report(finite, skip)

    def state_dict(self) -> dict[str, Any]:
        """Every strategy's memory, the step count and the record, as tensors and numbers.

        Loads with ``torch.load(weights_only=True)``.
        """
        return {
            "step": self._step,
            "strategies": [str(part.strategy) for part in self._parts],
            "memory": [copied(part.memory) for part in self._parts],
            "record": self.record.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another clipper with the same strategies and parameters stopped.

        Raises:
            UsageError: the state belongs to other strategies, or to other parameters.
        """
        mine = [str(part.strategy) for part in self._parts]
        if state["strategies"] != mine:
            raise UsageError(
                f"the state is of {', '.join(state['strategies'])}, but this clipper has "
                f"{', '.join(mine)}"
            )
        for part, memory in zip(self._parts, state["memory"], strict=True):
            part.load(memory)
        self._step = int(state["step"])
        self.record.load_state_dict(state["record"])

    def __repr__(self) -> str:
        parts = ", ".join(f"{p.strategy} on {p.groups.count} groups" for p in self._parts)
        return f"Clipper({parts}; {self._step} steps)"

    # -- the three verbs ---------------------------------------------------------------------

    def _measure(self) -> Tensor:
        """Measure the first strategy of each parameter; are all gradients finite? ``(1,)``."""
        firsts = [part for part in self._parts if part.first]
        found = [part.measure(self._recording) for part in firsts]
        if all(each is YES for each in found):
            return YES
        return found[0] if len(found) == 1 else _cat(found).all().view(1)

    def _clip(self, finite: Tensor) -> Tensor | None:
        """Ask each strategy, clip, let it learn; whether any wants the step skipped, ``(1,)``."""
        skip: Tensor | None = None
        for part in self._parts:
            if not part.first:
                part.measure(self._recording)
            wish = part.ask(self._step, finite if skip is None else finite & ~skip)
            part.clip(self._recording)
            if wish is not None:
                skip = wish if skip is None else skip | wish.to(skip.device)
        return skip

    def _clamp_only(self) -> ClipReport:
        found = [part.clamp_unmeasured(self._step) for part in self._parts]
        if not any(found):
            return self._nothing()
        self._step += 1
        return ClipReport(None, YES, NO)

    # -- inside ------------------------------------------------------------------------------

    def _refuse(self, grads: list[Tensor | None]) -> NoReturn:
        bad = [
            name
            for name, grad in zip(self.names, grads, strict=True)
            if grad is not None and not bool(torch.isfinite(grad).all())
        ]
        shown = ", ".join(bad[:10]) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
        raise FloatingPointError(
            f"gradients are not finite at step {self._step}: {shown or 'their norm overflows'}"
        )

    def _report(self, finite: Tensor, skip: Tensor | None) -> ClipReport:
        done = [(part.strategy, part.groups, part.made) for part in self._parts]
        if self._recording:
            self.record.add(
                _cat([part.total_before for part in self._parts if part.first]),
                _cat([part.total_after for part in self._parts if part.last]),
                _cat([made.limit for _, _, made in done]),
                _cat([made.clipped for _, _, made in done]),
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
        return ClipReport([], YES, NO)


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
