"""The norm of each layer over a run, and in words where gradients vanish or explode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gclip.errors import UsageError

Array = npt.NDArray[Any]

PREFIX = "layers/"
COLUMNS = ("before", "after", "before_max", "after_max", "skipped")
ALIKE = 10.0
"""Up to this ratio the first and the last layer have gradients of one size, in words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerRecord:
    """L2 norms of the gradients of each layer, at up to 256 points in time.

    All points but the last stand for the same number of steps, 1, 2, 4, 8, …: as few as suffice.

    Attributes:
        names: of the layers, in the order in which the model has them: its first layer first. With
            several players each name begins with the player's: ``generator.conv1``.
        players: of each layer, whose it is; "" where there is one player.
        step: the first step of each point, ``(points,)``; step 0 is the run's first.
        before: geometric mean of the norms before clipping, over those of a point's steps in which
            the norm was finite and not 0, ``(points, layers)``. Where there was none: 0, or inf
            where any was not finite; NaN where the layer had no gradient.
        after: the same after clipping, over the steps that were not skipped; NaN where all were.
        before_max: the largest norm before clipping; inf where any was not finite.
        after_max: and after it.
        skipped: share of the player's steps that were skipped, in [0, 1]; NaN where it made none.
    """

    names: tuple[str, ...]
    players: tuple[str, ...] = field(default=())
    step: Array
    before: Array
    after: Array
    before_max: Array
    after_max: Array
    skipped: Array

    def __post_init__(self) -> None:
        players = tuple(self.players) or ("",) * len(self.names)
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "players", players)
        shape = (len(self.step), len(self.names))
        wrong = [name for name in COLUMNS if getattr(self, name).shape != shape]
        if wrong or len(players) != len(self.names):
            raise UsageError(
                f"a record of {len(self.names)} layers at {len(self.step)} points has arrays of "
                f"{shape}, but got {', '.join(wrong) or f'{len(players)} players'}"
            )

    @property
    def layers(self) -> tuple[str, ...]:
        """The names without the players'."""
        return tuple(
            name.removeprefix(f"{player}.") if player else name
            for name, player in zip(self.names, self.players, strict=True)
        )

    def arrays(self) -> dict[str, Array]:
        """The arrays as they are stored: ``layers/step``, ``layers/before`` …"""
        return {f"{PREFIX}{name}": getattr(self, name) for name in ("step", *COLUMNS)}

    @classmethod
    def from_arrays(
        cls, names: Sequence[str], players: Sequence[str], arrays: Mapping[str, Array]
    ) -> LayerRecord:
        """Read what `arrays` gave.

        Raises:
            UsageError: some are missing, or have other shapes.
        """
        wanted = ("step", *COLUMNS)
        missing = [name for name in wanted if f"{PREFIX}{name}" not in arrays]
        if missing:
            raise UsageError(f"a record of layers lacks {', '.join(missing)}")
        own = {name: np.asarray(arrays[f"{PREFIX}{name}"]) for name in wanted}
        return cls(names=tuple(names), players=tuple(players), **own)

    def profiles(self) -> list[LayerProfile]:
        """Of each player, how its gradients change from its first layer to its last."""
        return [self._profile(player) for player in dict.fromkeys(self.players)]

    def _profile(self, player: str) -> LayerProfile:
        own = [index for index, each in enumerate(self.players) if each == player]
        before, after = (_medians(values[:, own]) for values in (self.before, self.after))
        known = [i for i, value in enumerate(before) if not math.isnan(value)] or [0]
        first, last = known[0], known[-1]
        largest = max(known, key=lambda i: before[i])
        names = self.layers
        return LayerProfile(
            player=player,
            layers=len(own),
            first=names[own[first]],
            last=names[own[last]],
            largest=names[own[largest]],
            first_norm=before[first],
            last_norm=before[last],
            largest_norm=before[largest],
            ratio=_ratio(before[first], before[last]),
            ratio_after=_ratio(after[first], after[last]),
        )


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """How a player's gradients change from its first layer to its last: medians over time.

    Attributes:
        player: whose layers, "" where there is one.
        layers: how many.
        first: the name of its first layer (that has gradients), which the inputs come to.
        last: of its last, from which gradients come.
        largest: of the one whose norm is the largest.
        first_norm: the median norm of `first` before clipping.
        last_norm: of `last`.
        largest_norm: of `largest`.
        ratio: of `first_norm` to `last_norm`: below 1 gradients shrink on their way back, above 1
            they grow. NaN where either is not known.
        ratio_after: the same after clipping.
    """

    player: str
    layers: int
    first: str
    last: str
    largest: str
    first_norm: float
    last_norm: float
    largest_norm: float
    ratio: float
    ratio_after: float

    def as_dict(self) -> dict[str, Any]:
        """Numbers and text for JSON; None where a number is not known or not finite."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in vars(self).items()
        }

    def __str__(self) -> str:
        whose = f" of {self.player}" if self.player else ""
        if self.layers < 2 or self.first == self.last:
            return f"layers{whose}: one, {self.first}, with a median norm of {self.first_norm:.3g}"
        if math.isnan(self.ratio):
            return f"layers{whose}: no norms to compare {self.first} with {self.last}"
        after = "" if math.isnan(self.ratio_after) else f", {_times(self.ratio_after)} after it"
        of = " of" if _times(self.ratio).startswith("1/") else ""
        return (
            f"layers{whose}: gradients {_word(self.ratio)} the first layer: the median norm in "
            f"{self.first} is {_times(self.ratio)}{of} that in {self.last} before clipping{after}; "
            f"largest in {self.largest} ({self.largest_norm:.3g})"
        )


def _medians(values: Array) -> list[float]:
    """Over the points with a finite number, layer by layer."""
    columns = [column[np.isfinite(column)] for column in values.T]
    return [float(np.median(column)) if len(column) else math.nan for column in columns]


def _ratio(first: float, last: float) -> float:
    if math.isnan(first) or math.isnan(last) or first == last == 0:
        return math.nan
    return first / last if last else math.inf


def _word(ratio: float) -> str:
    if 1 / ALIKE <= ratio <= ALIKE:
        return "stay of one size down to"
    return "vanish towards" if ratio < 1 else "explode towards"


def _times(ratio: float) -> str:
    """``3.2 times``, ``1/850``."""
    if 0 < ratio < 1 / ALIKE:
        return f"1/{1 / ratio:,.0f}"
    return f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.2g} times"
