"""Whose gradients are not finite, and whose were first?

A host knows at once, and looks at the gradients of such a step only. A GPU is not waited for: the
norms that a step has measured anyway are kept for some steps, looked at together on the device, and
read when somebody asks. A step whose gradients are finite costs nothing beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gclip.core.host import on_host

Norms: TypeAlias = Sequence[tuple[Sequence[str], Tensor]]
"""Names, and the norm of what each of them names: ``(names,)``, of a fleet ``(runs, names)``."""

_STEPS, _FLOATS = 64, 1 << 20  # how many steps, and norms, wait before they are looked at


@dataclass(frozen=True)
class FirstNonfinite:
    """The first step in which gradients were not finite.

    >>> str(FirstNonfinite(37, ("conv1.weight", "conv1.bias")))
    'first at step 37 in conv1.weight and 1 more'

    Attributes:
        step: from 0.
        parameters: whose gradients, in the model's order; none where nobody has looked.
    """

    step: int
    parameters: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"step": self.step, "parameters": list(self.parameters)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> FirstNonfinite | None:
        """Read what `as_dict` gave; None for nothing."""
        if not values:
            return None
        return cls(int(values["step"]), tuple(map(str, values["parameters"])))

    def __str__(self) -> str:
        where = named(self.parameters)
        return f"first at step {self.step:,}{f' in {where}' if where else ''}"


def named(parameters: Sequence[str]) -> str:
    """``conv1.weight and 3 more``; "" for none."""
    more = f" and {len(parameters) - 1} more" if len(parameters) > 1 else ""
    return f"{parameters[0]}{more}" if parameters else ""


class NonfiniteGradients:
    """Whose gradients are not finite in one step.

    Args:
        norms: that tell it, on a device which nobody waits for yet.
        known: the parameters, where the host has looked at them.
    """

    def __init__(self, norms: Norms = (), known: Sequence[str] | None = None) -> None:
        self.norms, self.known = norms, known

    @property
    def parameters(self) -> tuple[str, ...]:
        """Their names; reading them waits for the device."""
        if self.known is not None:
            return tuple(self.known)
        flags = [(names, ~torch.isfinite(norms)) for names, norms in self.norms]
        return _marked(flags)


class NonfiniteLog:
    """The first step of each of `runs` runs in which gradients were not finite."""

    def __init__(self, runs: int = 1) -> None:
        self.runs = runs
        self._found: list[FirstNonfinite | None] = [None] * runs
        self._waiting: list[tuple[int, Tensor, Norms]] = []
        self._most = _STEPS
        # What the device knows: the step of each run (-1 for none), and who was not finite then.
        self._steps: Tensor | None = None
        self._flags: list[tuple[Sequence[str], Tensor]] = []

    def note(self, step: int, finite: Tensor, gradients: NonfiniteGradients | None) -> None:
        """Note a step that may not be finite.

        Args:
            step: its number, from 0; one more at each call where the host does not know.
            finite: bool ``(runs, 1)``, or ``(1,)`` of one run.
            gradients: of that step, where any may not be finite.
        """
        if gradients is None or None not in self._found:
            return
        if on_host(finite):
            for run, is_finite in enumerate(finite.view(-1).tolist()):
                if not is_finite and self._found[run] is None:
                    known = gradients.known
                    if known is None:
                        own = [(n, norms.view(-1, len(n))[run]) for n, norms in gradients.norms]
                        known = NonfiniteGradients(own).parameters
                    self._found[run] = FirstNonfinite(step, tuple(known))
            return
        if self._waiting and not _alike(self._waiting[-1][2], gradients.norms):
            self._look()
        if not self._waiting:
            floats = sum(norms.numel() for _, norms in gradients.norms)
            self._most = max(1, min(_STEPS, _FLOATS // max(floats, 1)))
        self._waiting.append((step, finite, gradients.norms))
        if len(self._waiting) >= self._most:
            self._look()

    def first(self, run: int = 0) -> FirstNonfinite | None:
        """The first step of a run; None where all were finite. Waits for the device."""
        self._look()
        self._read()
        return self._found[run]

    def set_first(self, first: FirstNonfinite, run: int = 0) -> None:
        """Go on from what another log has found."""
        self._found[run] = first

    def select_runs(self, indices: Sequence[int]) -> None:
        """Go on with these runs alone."""
        self._look()
        self._read()
        self._found = [self._found[run] for run in indices]
        self.runs = len(self._found)

    # -- inside ------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look at the steps that wait, on the device."""
        if not self._waiting:
            return
        steps, finites, norms = zip(*self._waiting, strict=True)
        self._waiting = []
        bad = ~torch.stack([finite.view(self.runs) for finite in finites])  # (steps, runs)
        place = bad.float().argmax(dim=0)
        first = torch.where(bad.any(dim=0), place + steps[0], -1)
        flags = []
        for each in zip(*norms, strict=True):
            names = each[0][0]
            values = torch.stack([own for _, own in each]).view(len(steps), self.runs, len(names))
            index = place.to(values.device).view(1, -1, 1).expand(1, -1, len(names))
            flags.append((names, ~torch.isfinite(values.gather(0, index)[0])))
        if self._steps is not None and not _alike(self._flags, flags):
            self._read()
        if self._steps is not None:
            new = (self._steps < 0).to(first.device)
            first = torch.where(new, first, self._steps.to(first.device))
            flags = [
                (names, torch.where(new.to(own.device).view(-1, 1), own, old.to(own.device)))
                for (names, own), (_, old) in zip(flags, self._flags, strict=True)
            ]
        self._steps, self._flags = first, flags

    def _read(self) -> None:
        """What the device knows, on the host."""
        if self._steps is None:
            return
        for run, step in enumerate(self._steps.tolist()):
            if step >= 0 and self._found[run] is None:
                own = [(names, flags[run]) for names, flags in self._flags]
                self._found[run] = FirstNonfinite(step, _marked(own))
        self._steps, self._flags = None, []


def _alike(one: Norms, other: Norms) -> bool:
    """Whether both are about the same names, in the same order."""
    return [names for names, _ in one] == [names for names, _ in other]


def _marked(flags: Norms) -> tuple[str, ...]:
    """The names that are marked, each once."""
    return tuple(
        dict.fromkeys(
            name
            for names, marks in flags
            for name, mark in zip(names, marks.tolist(), strict=True)
            if mark
        )
    )
