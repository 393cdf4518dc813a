"""Follows a training loop: which gradients are new, who clips them, which step uses them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gclip.clipping.hooks import innermost
from gclip.doctor.events import Clip, ClipKind, Met, Norms, Observation, Player, Step, Window, total
from gclip.doctor.measure import gradient_elements, norms_of
from gclip.doctor.places import Place, called_within, calling_place

_SAME = 1e-6
"""Norms nearer than this are of the same gradient, summed in another order."""

_FSDP = "fully_sharded_data_parallel"
"""The file whose ``clip_grad_norm_`` knows of the other processes."""

_BY_HAND = "lines of the loop that make gradients smaller"


@dataclass
class _Seen:
    """An optimizer and what is going on with it."""

    optimizer: torch.optim.Optimizer
    name: str
    given: bool
    window: Window = field(default_factory=Window)

    @property
    def params(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


class Watcher:
    """Is told what happens, and keeps what matters.

    Args:
        named: the model's parameters by name.
        optimizers: the user's, by name.
    """

    def __init__(
        self, named: Mapping[str, Tensor], optimizers: Mapping[str, torch.optim.Optimizer]
    ) -> None:
        self._params: dict[int, Tensor] = {}  # by number; held, so that identities stay theirs
        self._numbers: dict[int, int] = {}  # by identity
        self._names: list[str] = []
        for name, param in named.items():
            self._number(param, name)
        self._players: list[_Seen] = []
        for name, optimizer in optimizers.items():
            self._add(innermost(optimizer), name, given=True)
        self._own = len(self._names)
        self._steps: list[Step] = []
        self._clips: list[Clip] = []
        self.skipped = 0
        self._last: Norms = {}
        self._grads: dict[int, weakref.ref[Tensor]] = {}
        self._fresh: set[int] = set()  # their gradients have been used by no step
        self._used: set[int] = set()  # a step has used their gradients
        self._scales: dict[int, float] = {}
        self._depth = 0
        self._pending: list[float] = []  # scales of losses whose backward pass is still to come
        self.clipping = False  # within a clip that is already seen
        self._hooked = frozenset(n for n, p in self._params.items() if has_hooks(p))
        self.look()
        self._fresh.clear()  # what was there before is of no known age

    # -- what happens --------------------------------------------------------------------------

    def scaled(self, scale: float) -> None:
        """A loss was multiplied by this; its backward pass is still to come."""
        self._pending.append(scale)

    def begin_backward(self) -> None:
        """A backward pass begins."""
        self.look(calling_place())
        self._depth += 1
        if self._depth > 1:
            return
        for seen in self._players:
            if not any(self._last.get(n) for n in self._of(seen.params)):  # none, or zeros
                seen.window = Window()
        self._scales = {n: s for n, s in self._scales.items() if self._last.get(n)}

    def end_backward(self) -> None:
        """A backward pass has ended; gradients that it changed are new."""
        self._depth -= 1
        if self._depth:
            return
        place, before, old = calling_place(), self._last, dict(self._grads)
        self._remember(norms_of(self._params))
        touched = {
            n
            for n, norm in self._last.items()
            if not self._is(n, old) or not _same(norm, before.get(n, math.nan))
        }
        self._fresh |= touched
        if self._pending and (scale := self._pending.pop(0)) != 1:
            self._scales.update(dict.fromkeys(touched, scale))
        for seen in self._players:
            own = self._of(seen.params)
            if touched.intersection(own):
                seen.window.events.append(place)
                seen.window.raw = {n: self._last[n] for n in own if n in self._last}

    def clip(
        self,
        kind: ClipKind,
        by: str,
        params: Iterable[Tensor],
        call: Callable[[], Any],
        describe: Callable[[Any], dict[str, Any] | None],
    ) -> Any:
        """Make a call that clips these parameters' gradients, and note what it did.

        Args:
            describe: of what the call has returned: `Clip`'s other fields; None for no clip.
        """
        listed = list(params)
        place = calling_place()
        self.look(place)
        numbers = [self._number(p) for p in listed]
        unique = tuple(dict.fromkeys(numbers))
        before = norms_of({n: self._params[n] for n in unique})
        met = "fresh" if self._depth else self._met(unique, before)
        self.clipping = True
        try:
            result = call()
        finally:
            self.clipping = False
        after = norms_of({n: self._params[n] for n in unique})
        if not self._depth:
            self._remember(norms_of(self._params))
        scale = max((self._scales.get(n, 1.0) for n in unique if before.get(n)), default=1.0)
        others = describe(result)
        if others is None:
            return result
        self._note(
            Clip(
                **{
                    "kind": kind, "by": by, "place": place, "step": len(self._steps),
                    "params": unique, "duplicates": len(numbers) - len(unique), "before": before,
                    "after": after, "met": met, "scale": scale,
                    "flat": not called_within(_FSDP) and any(map(_is_flat, listed)), **others,
                }
            )
        )  # fmt: skip
        return result

    @property
    def made(self) -> int:
        """How many optimizer steps were seen."""
        return len(self._steps)

    def begin_unscale(self) -> None:
        """A gradient scaler is about to divide gradients."""
        self.look(calling_place())

    def end_unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """It has; what changed is no clip."""
        self._remember(norms_of(self._params))
        for param in _params_of(optimizer):
            self._scales.pop(self._number(param), None)

    def begin_step(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer's step begins; it may still compute gradients, in a closure."""
        if self._find(optimizer) is not None and not self._depth:
            self.look(calling_place())

    def end_step(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer's step has ended."""
        seen = self._find(optimizer)
        if seen is None:
            return
        if bool(getattr(optimizer, "found_inf", False)):  # a fused step that leaves itself out
            self.skipped += 1
            return
        params = seen.params
        own = self._of(params)
        inside = self._depth > 0
        norms = norms_of(dict(zip(own, params, strict=True))) if inside else self._last
        scale = getattr(optimizer, "grad_scale", None)  # by which a fused step divides them
        divisor = 1.0 if scale is None else float(scale)
        norms = {n: norms[n] / divisor for n in own if n in norms}
        self._steps.append(
            Step(
                optimizer=self._players.index(seen), place=calling_place(),
                events=tuple(seen.window.events), raw=seen.window.raw or norms, norms=norms,
                elements=gradient_elements(params), inside=inside,
                rates=tuple(float(g["lr"]) for g in seen.optimizer.param_groups if "lr" in g),
            )
        )  # fmt: skip
        seen.window = Window()
        self._fresh.difference_update(own)
        self._used.update(own)
        if not inside:  # a fused step under a scaler divides the gradients itself
            self._remember(norms_of(self._params))

    def look(self, place: Place | None = None) -> None:
        """Compare gradients with those last seen: has the loop changed them by its own lines?"""
        if self.clipping or self._depth:  # within a backward pass gradients change
            return
        before, old = self._last, dict(self._grads)
        self._remember(norms_of(self._params))
        now = self._last
        for n, norm in now.items():  # written by hand: autograd.grad(), or another process's
            if norm and (not before.get(n) or not self._is(n, old)):
                self._fresh.add(n)
        changed = [n for n in now if before.get(n) and now[n] and not _same(now[n], before[n])]
        if place is None or not changed:
            return
        after = {n: now[n] for n in before if n in now}
        if any(now[n] > before[n] * (1 + _SAME) or now[n] != now[n] for n in changed):
            return  # something was added: an average over processes, or noise
        numbers = tuple(after)
        met = self._met(numbers, after)
        self._note(
            Clip(
                kind="hand", by=_BY_HAND, place=place, step=len(self._steps),
                params=numbers, before={n: before[n] for n in numbers}, after=after, met=met,
                size=total({n: before[n] for n in numbers}),
                scale=max((self._scales.get(n, 1.0) for n in numbers), default=1.0),
            )
        )  # fmt: skip

    # -- what it makes of it -------------------------------------------------------------------

    def observation(self) -> Observation:
        """All that was seen so far."""
        several = len(self._players) > 1
        return Observation(
            names=tuple(self._names), own=self._own, hooked=self._hooked,
            players=tuple(
                Player(
                    label=f"{each.name} ({type(each.optimizer).__name__})"
                    if several and each.name
                    else type(each.optimizer).__name__,
                    kind=type(each.optimizer).__name__, params=frozenset(self._of(each.params)),
                    eps=_eps(each.optimizer), given=each.given,
                )
                for each in self._players
            ),
            steps=tuple(self._steps), clips=tuple(self._clips), skipped=self.skipped,
        )  # fmt: skip

    # -- inside --------------------------------------------------------------------------------

    def _number(self, param: Tensor, name: str = "") -> int:
        number = self._numbers.get(id(param))
        if number is None:
            number = self._numbers[id(param)] = len(self._names)
            self._params[number] = param
            self._names.append(name or f"a tensor of shape {tuple(param.shape)}")
        return number

    def _of(self, params: Iterable[Tensor]) -> list[int]:
        return [self._number(p) for p in params]

    def _add(self, optimizer: torch.optim.Optimizer, name: str, *, given: bool) -> _Seen:
        seen = _Seen(optimizer, name, given)
        for group, each in enumerate(optimizer.param_groups):
            for place, param in enumerate(each["params"]):
                self._number(param, f"{name or 'optimizer'}.param_groups[{group}][{place}]")
        self._players.append(seen)
        return seen

    def _find(self, optimizer: torch.optim.Optimizer) -> _Seen | None:
        """What is known of an optimizer; None for one that is none of this model's."""
        for seen in self._players:
            if seen.optimizer is optimizer:
                return seen
        if innermost(optimizer) is not optimizer:
            return None  # the one that it wraps makes the step
        known = [self._numbers.get(id(p), self._own) < self._own for p in _params_of(optimizer)]
        return self._add(optimizer, "", given=False) if any(known) else None

    def _is(self, number: int, old: Mapping[int, weakref.ref[Tensor]]) -> bool:
        """Whether a parameter's gradient is the tensor that it was."""
        known = old.get(number)
        return known is not None and known() is self._params[number].grad

    def _remember(self, norms: Norms) -> None:
        self._last = norms
        grads = ((n, self._params[n].grad) for n in norms)
        self._grads = {n: weakref.ref(grad) for n, grad in grads if grad is not None}

    def _met(self, numbers: Iterable[int], norms: Norms) -> Met:
        there = {n for n in numbers if norms.get(n)}
        if not there:
            return "none"
        if there & self._fresh:
            return "fresh"
        return "stepped" if there <= self._used else "stale"

    def _note(self, clip: Clip) -> None:
        self._clips.append(clip)
        for seen in self._players:
            if set(self._of(seen.params)).intersection(clip.params):
                seen.window.events.append(clip)


def has_hooks(param: Tensor) -> bool:
    """Whether hooks of the user's may change a parameter's gradient."""
    names = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(param, name, None) for name in names)


def _params_of(optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _same(one: float, other: float) -> bool:
    return one == other or abs(one - other) <= _SAME * max(one, other)


def _eps(optimizer: torch.optim.Optimizer) -> float | None:
    eps = optimizer.param_groups[0].get("eps") if optimizer.param_groups else None
    return float(eps) if isinstance(eps, int | float) else None


def _is_flat(param: Tensor) -> bool:
    """Whether it is one process's part of FSDP's (the first version's) flat parameter."""
    names = ("_is_flat_param", "_fsdp_flattened")  # itself, and a view of it
    return type(param).__name__ == "FlatParameter" or any(hasattr(param, each) for each in names)
