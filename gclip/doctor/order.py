"""Diagnoses of when a loop clips: too late, too early, too often, in parts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from gclip.doctor.events import Clip, ClipKind, Observation, Step, total
from gclip.doctor.findings import Finding
from gclip.doctor.places import Place
from gclip.doctor.sites import sites
from gclip.doctor.words import by, listed, placed, shown

_OFTEN = 0.5
"""What happens in fewer of the steps than this is no habit of the loop's."""

_Pair: TypeAlias = tuple[Place, ClipKind, Place, ClipKind]
"""Two clips, by their lines."""


def after_step(seen: Observation) -> Iterator[Finding]:
    """Clips of gradients that a step has used already, and that are cleared next."""
    used = {id(e) for step in seen.steps for e in step.events}
    for clips in sites(seen.clips):
        late = [c for c in clips if c.met == "stepped" and id(c) not in used]
        if len(late) >= _OFTEN * len(clips):
            yield Finding(
                code="after-step",
                severity="wrong",
                sentence=f"{clips[0].by} comes after optimizer.step(): it clips gradients that "
                "the step has used already.",
                where=str(clips[0].place),
                why="The step was made with gradients of any size; clipping them afterwards "
                "changes nothing.",
                advice="Move it between backward() and optimizer.step().",
                numbers={"calls": len(clips), "late": len(late)},
            )


def before_backward(seen: Observation) -> Iterator[Finding]:
    """Clips that find no gradients, or old ones that the next backward pass adds to."""
    used = {id(e) for step in seen.steps for e in step.events}
    hooked = _stepped_inside(seen)
    for clips in sites(seen.clips):
        if not clips[-1].params or hooked.intersection(clips[-1].params):
            continue  # other diagnoses have it
        nothing = [c for c in clips if c.met == "none"]
        old = [c for c in clips if c.met == "stepped" and id(c) in used]
        stepped = any(c.met == "stepped" for c in clips)
        if len(nothing) + len(old) < _OFTEN * len(clips) or (stepped and not old):
            continue  # after the step; only its first call found nothing
        if old:
            what = "clips the gradients of the step before, to which the next backward() adds"
            advice = (
                "Move it between backward() and optimizer.step(), and call optimizer.zero_grad() "
                "once a step."
            )
        else:
            what = "finds no gradients: they are not computed yet, or cleared already"
            advice = "Move it between backward() and optimizer.step()."
        yield Finding(
            code="before-backward",
            severity="wrong",
            sentence=f"{clips[0].by} {what}.",
            where=str(clips[0].place),
            why="What the step uses is not clipped.",
            advice=advice,
            numbers={"calls": len(clips), "without gradients": len(nothing), "stale": len(old)},
        )


def scaled(seen: Observation) -> Iterator[Finding]:
    """Clips of gradients that are still multiplied by a loss scale."""
    for clips in sites(c for c in seen.clips if c.met == "fresh" and c.scale != 1):
        scale = clips[-1].scale
        limit = clips[-1].limit
        means = f": {shown(limit)} means {shown(limit / scale)} here" if limit else ""
        numbers: dict[str, float | int | str] = {"scale": scale, "calls": len(clips)}
        if limit:
            numbers |= {"limit": limit, "true limit": limit / scale}
        yield Finding(
            code="scaled",
            severity="wrong",
            sentence=f"{clips[0].by} clips gradients that are still multiplied by the loss scale, "
            f"{shown(scale)}.",
            where=str(clips[0].place),
            why=f"The limit is held against gradients that are too large by that factor{means}; "
            "and it changes whenever the scale does.",
            advice="Call scaler.unscale_(optimizer) before clipping.",
            numbers=numbers,
        )


def micro_batches(seen: Observation) -> Iterator[Finding]:
    """Clips between the backward passes of one step."""
    found = [(step, early) for step in seen.steps if (early := _early(step))]
    if len(found) < _OFTEN * len(seen.steps) or not found:
        return
    early = found[-1][1]
    clips = [c for c in found[-1][0].clips if c.kind == early[0].kind]
    passes = sum(isinstance(e, Place) for e in found[-1][0].events)
    each = len(clips) == passes
    yield Finding(
        code="micro-batches",
        severity="wrong",
        sentence=f"{early[0].by} clips {'after each' if each else 'before the last'} of the "
        f"{passes} backward passes of a step, while they accumulate.",
        where=str(early[0].place),
        why="It clips sums of some of the micro-batches, again and again: each pass counts less "
        "than those after it, and the whole gradient may be larger than the limit."
        if each
        else "What the last backward passes add is not clipped.",
        advice="Clip once a step: after the last backward(), right before optimizer.step().",
        numbers={"backward passes a step": passes, "clips a step": len(clips)},
    )


def subsets(seen: Observation) -> Iterator[Finding]:
    """Several clips of disjoint parts of one optimizer's parameters, each by its own norm."""
    for number, player in enumerate(seen.players):
        steps = seen.of(number)
        found = [parts for step in steps if len(parts := _parts(step)) > 1]
        if not found or len(found) < _OFTEN * len(steps):
            continue
        parts = found[-1]
        limits = [c.limit for c in parts if c.limit is not None]
        numbers: dict[str, float | int | str] = {"parts": len(parts)}
        together = ""
        if len(limits) == len(parts):
            largest = math.hypot(*limits)
            numbers["largest norm together"] = largest
            together = f"; together they may have a norm of {shown(largest)}"
        single = all(len(c.params) == 1 for c in parts)
        how = "one parameter at a time" if single else f"in {len(parts)} parts"
        yield Finding(
            code="subsets",
            severity="doubtful",
            sentence=f"The gradients of {player.label} are clipped {how}, each by its own norm.",
            where=placed(c.place for c in parts),
            why=f"Parts are scaled differently, so the direction of the step changes{together}.",
            advice="If one norm of all is meant, give all parameters to one call; if parts are "
            'meant, gclip.Clipper(model, "norm(scope=layer)") says so.',
            numbers=numbers,
        )


def twice(seen: Observation) -> Iterator[Finding]:
    """Two clips of the same gradients before one step."""
    pairs: dict[_Pair, tuple[Clip, Clip]] = {}
    counts: dict[_Pair, int] = {}
    for step in seen.steps:
        for one, other in itertools.combinations(_last_clips(step), 2):
            if set(one.params).intersection(other.params):
                key = one.place, one.kind, other.place, other.kind
                pairs[key] = one, other
                counts[key] = counts.get(key, 0) + 1
    for key, (one, other) in pairs.items():
        if counts[key] < _OFTEN * len({id(s) for s in seen.steps if _last_clips(s)}):
            continue
        libraries = [c.place.library for c in (one, other) if c.place.library]
        who = f", once by {listed(libraries)}" if libraries else ""
        yield Finding(
            code="twice",
            severity="doubtful",
            sentence=f"The same gradients are clipped twice before a step{who}: by {by([one])}, "
            f"then by {by([other])}.",
            where=placed((one.place, other.place)),
            why="The second meets what the first has left, so only the tighter of two limits of "
            "one kind ever acts, and norms logged by the second are not the gradients'.",
            advice="Keep one of them (in a framework, its option or the call); if both are meant, "
            "gclip.chain says so.",
            numbers={"steps": counts[key]},
        )


def _early(step: Step) -> list[Clip]:
    """The clips after which another backward pass added to the same gradients."""
    if step.inside:
        return []
    last = max((i for i, e in enumerate(step.events) if isinstance(e, Place)), default=0)
    return [e for e in step.events[:last] if isinstance(e, Clip) and e.met == "fresh"]


def _last_clips(step: Step) -> list[Clip]:
    """The clips after the last backward pass."""
    last = max((i for i, e in enumerate(step.events) if isinstance(e, Place)), default=-1)
    clips = [e for e in step.events[last + 1 :] if isinstance(e, Clip) and e.met == "fresh"]
    return [clip for clip in clips if not clip.of_update]


def _parts(step: Step) -> Sequence[Clip]:
    """The clips by norm that share no parameter with another; none where any two do."""
    clips = [c for c in _last_clips(step) if c.kind == "norm" and _by_own_norm(c)]
    together = [n for c in clips for n in c.params]
    return clips if len(together) == len(set(together)) else []


def _by_own_norm(clip: Clip) -> bool:
    """Whether it is by the norm of the gradients listed, not of more than these."""
    return clip.by == "clip_grad_norm_" or clip.size <= total(clip.before) * (1 + 1e-3)


def _stepped_inside(seen: Observation) -> set[int]:
    return {n for s in seen.steps if s.inside for n in seen.players[s.optimizer].params}
