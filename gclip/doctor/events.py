"""What a loop did while it was watched: clips, backward passes and optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from gclip.doctor.places import Place

Norms: TypeAlias = Mapping[int, float]
"""The L2 norms of gradients, by the number of their parameter; those without one are left out."""

ClipKind: TypeAlias = Literal["norm", "value", "gclip", "hand"]
Met: TypeAlias = Literal["fresh", "none", "stepped", "stale"]
"""What a clip found: gradients of a backward pass that no step has used; none, or zeros; those
that a step had used already; old ones that no step has used."""


def total(norms: Norms) -> float:
    """The norm of all gradients together."""
    return math.hypot(*norms.values())


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One call of something that clips.

    Attributes:
        kind: by what: torch's norm or value, gclip, or lines of the loop's own.
        by: the function, or gclip's strategy, in words.
        place: the line that called; of lines of the loop's own, the next line that was seen.
        step: how many optimizer steps had been made before.
        params: the numbers of the parameters listed, each once.
        duplicates: how many were listed again.
        limit: the largest size allowed; None where there is no one number.
        size: what was held against it: a norm, or the largest absolute element.
        before, after: the L2 norms around it.
        met: what gradients it found.
        scale: by what loss scale they were still multiplied; 1 for none.
        checked: whether it would have raised for a norm that is not finite.
        flat: whether they were shards of parameters spread over processes.
        skipped: whether it said that the step is to be left out (gclip).
        of_update: whether it is the optimizer's update that is clipped, after this call (gclip).
        left: the share of the total norm that it left, where the norms around it do not tell.
    """

    kind: ClipKind
    by: str
    place: Place
    step: int
    params: tuple[int, ...]
    duplicates: int = 0
    limit: float | None = None
    size: float = math.nan
    before: Norms
    after: Norms
    met: Met = "fresh"
    scale: float = 1.0
    checked: bool = False
    flat: bool = False
    skipped: bool = False
    of_update: bool = False
    left: float | None = None

    @property
    def factor(self) -> float:
        """What it left of the total norm: 1 for everything; NaN where there was nothing."""
        if self.left is not None:
            return self.left
        before = total(self.before)
        return total(self.after) / before if before > 0 else math.nan


Event: TypeAlias = Clip | Place
"""A clip, or the line of a backward pass."""


@dataclass
class Window:
    """What happened to one optimizer's gradients since its last step, in order."""

    events: list[Event] = field(default_factory=list)
    raw: Norms = field(default_factory=dict)  # after the last backward pass, before any clip


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of one optimizer.

    Attributes:
        optimizer: its number among those seen.
        place: the line that called.
        events: clips and backward passes since its last step, in order.
        raw: norms after the last backward pass, before clipping; of scaled losses still scaled.
        norms: norms of the gradients that it used.
        elements: how many elements those have.
        rates: the learning rates of its parameter groups.
        inside: whether it was made within a backward pass.
    """

    optimizer: int
    place: Place
    events: tuple[Event, ...]
    raw: Norms
    norms: Norms
    elements: int
    rates: tuple[float, ...]
    inside: bool

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clips that met gradients of this step."""
        return tuple(e for e in self.events if isinstance(e, Clip) and e.met == "fresh")

    @property
    def finite(self) -> bool:
        """Whether all gradients that it used were finite."""
        return all(map(math.isfinite, self.norms.values()))


@dataclass(frozen=True, kw_only=True)
class Player:
    """An optimizer, as findings speak of it.

    Attributes:
        label: ``"SGD"``, or ``"generator (Adam)"`` where there are several.
        kind: its class's name.
        params: the numbers of its parameters.
        eps: the ε in the denominator of its update; None for none.
        given: whether the user has named it.
    """

    label: str
    kind: str
    params: frozenset[int]
    eps: float | None
    given: bool


@dataclass(frozen=True, kw_only=True)
class Observation:
    """All that was seen.

    Attributes:
        names: of the parameters, by their numbers.
        own: how many of them are the model's or the optimizers'; those after are only clipped.
        hooked: the numbers of those that have hooks of their own, which may change gradients.
        skipped: how many steps a gradient scaler left out.
    """

    names: tuple[str, ...]
    own: int
    hooked: frozenset[int]
    players: tuple[Player, ...]
    steps: tuple[Step, ...]
    clips: tuple[Clip, ...]
    skipped: int

    def of(self, player: int) -> tuple[Step, ...]:
        """The steps of one optimizer."""
        return tuple(step for step in self.steps if step.optimizer == player)
