"""Clips by the line that makes them, and which of a loop's own changes are clips at all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from gclip.clipping.verdicts import LIMITED
from gclip.doctor.events import Clip, Event, Observation
from gclip.doctor.places import Place

_UNIFORM = 1e-4
FEWEST = 5
"""Of fewer calls no share is worth a sentence."""


def sites(clips: Iterable[Clip]) -> list[list[Clip]]:
    """The clips of each line, in the order in which the lines were first seen."""
    found: dict[tuple[Place, str], list[Clip]] = {}
    for clip in clips:
        found.setdefault((clip.place, clip.kind), []).append(clip)
    return list(found.values())


def limited_share(clips: Sequence[Clip]) -> float:
    """Of these clips, the share that shrank the total norm by more than 1 %."""
    return sum(clip.factor < LIMITED for clip in clips) / len(clips)


def usable(clips: Iterable[Clip]) -> list[Clip]:
    """Those that met new gradients of finite size under a limit that can be one."""
    return [
        clip
        for clip in clips
        if clip.met == "fresh"
        and math.isfinite(clip.factor)
        and not clip.skipped
        and not clip.of_update
        and (clip.limit is None or clip.limit > 0)
    ]


def without_rescaling(seen: Observation) -> Observation:
    """`seen` without changes that multiply all gradients by one number in every step.

    That is a mean over micro-batches or processes, or a loss scale taken back.
    """
    own = [clip for clip in seen.clips if clip.kind == "hand"]
    uniform = [clip for clip in own if _is_uniform(clip)]
    factors = [clip.factor for clip in uniform]
    often = len(uniform) >= 0.9 * len(seen.steps)
    if not factors or not often or max(factors) - min(factors) > _UNIFORM * max(factors):
        return seen
    left_out = {id(clip) for clip in uniform}

    def kept(events: Iterable[Event]) -> tuple[Event, ...]:
        return tuple(each for each in events if id(each) not in left_out)

    return dataclasses.replace(
        seen,
        clips=tuple(clip for clip in seen.clips if id(clip) not in left_out),
        steps=tuple(dataclasses.replace(s, events=kept(s.events)) for s in seen.steps),
    )


def _is_uniform(clip: Clip) -> bool:
    factors = [clip.after[n] / before for n, before in clip.before.items() if before > 0]
    return bool(factors) and max(factors) - min(factors) <= _UNIFORM * max(factors)
