"""Diagnoses of what a loop clips: too much, too little, some of it twice, or only shards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from gclip.doctor.events import Clip, Observation
from gclip.doctor.findings import Finding
from gclip.doctor.sites import sites
from gclip.doctor.words import listed, percent, quantile
from gclip.text.screen import plural


def empty_list(seen: Observation) -> Iterator[Finding]:
    """Calls without any parameter, as of a generator that is used up."""
    for clips in sites(seen.clips):
        empty = [c for c in clips if not c.params and c.kind != "hand"]
        if empty:
            used_up = len(empty) < len(clips)
            yield Finding(
                code="empty-list",
                severity="wrong",
                sentence=f"{clips[0].by} was given no parameters in {len(empty)} of "
                f"{plural(len(clips), 'call')}.",
                where=str(clips[0].place),
                why="Nothing is clipped then."
                + (
                    " model.parameters() is a generator: kept in a variable, it is used up by "
                    "its first use."
                    if used_up
                    else ""
                ),
                advice="Call model.parameters() anew each time, or keep list(model.parameters()).",
                numbers={"calls": len(clips), "without parameters": len(empty)},
            )


def duplicates(seen: Observation) -> Iterator[Finding]:
    """Parameters listed more than once in one call."""
    for clips in sites(c for c in seen.clips if c.duplicates):
        count = clips[-1].duplicates
        yield Finding(
            code="duplicates",
            severity="wrong",
            sentence=f"{clips[0].by} was given {plural(count, 'parameter')} more than once.",
            where=str(clips[0].place),
            why="Each time it is listed a gradient counts in the norm, and is scaled once more: "
            "it ends smaller than the others.",
            advice="List each parameter once; model.parameters() does, also where weights are "
            "tied.",
            numbers={"listed again": count, "calls": len(clips)},
        )


def unclipped(seen: Observation) -> Iterator[Finding]:
    """Parameters that an optimizer steps and nothing clips, though others of it are clipped."""
    for number, player in enumerate(seen.players):
        steps = [s for s in seen.of(number) if s.clips and not s.inside]
        missing: Counter[int] = Counter()
        shares: dict[int, list[float]] = {}
        for step in steps:
            covered = {n for clip in step.clips for n in clip.params}
            square = sum(norm * norm for norm in step.raw.values())
            for n in step.norms.keys() - covered:
                missing[n] += 1
                norm = step.raw.get(n, 0.0)
                share = norm * norm / square if square and math.isfinite(square) else 0.0
                shares.setdefault(n, []).append(share)
        never = sorted(n for n, count in missing.items() if 2 * count > len(steps))
        if not never:
            continue
        share = min(1.0, sum(quantile(shares[n], 0.5) for n in never))
        hooks = len(seen.hooked.intersection(never))
        yield Finding(
            code="unclipped",
            severity="doubtful",
            sentence=f"{plural(len(never), 'parameter')} of {player.label} "
            f"{'is' if len(never) == 1 else 'are'} never clipped while the others are: "
            f"{listed([seen.names[n] for n in never])}.",
            where=listed(list(dict.fromkeys(str(c.place) for c in steps[-1].clips))),
            why=f"{percent(share)} of the squared gradient norm is theirs; a spike there passes "
            "unclipped.",
            advice="Give the call all of the optimizer's parameters"
            + (f" ({hooks} have hooks, which the doctor does not look into)." if hooks else "."),
            numbers={"parameters": len(never), "share of the squared norm": share},
        )


def unstepped(seen: Observation) -> Iterator[Finding]:
    """Parameters whose gradients count in a clip's norm though no optimizer steps them."""
    stepped = {n for s in seen.steps for n in seen.players[s.optimizer].params}
    if not seen.steps:
        return
    for clips in sites(c for c in seen.clips if c.met == "fresh"):
        useless = sorted({n for c in clips for n in c.params if c.before.get(n)} - stepped)
        shares = [s for c in clips if not math.isnan(s := _share(c, useless))]
        if not useless or clips[0].kind == "hand" or not shares:
            continue
        share = quantile(shares, 0.5)
        yield Finding(
            code="unstepped",
            severity="wrong" if share >= 0.01 else "doubtful",
            sentence=f"{clips[0].by} clips {plural(len(useless), 'parameter')} that no optimizer "
            f"steps: {listed([seen.names[n] for n in useless])}.",
            where=str(clips[0].place),
            why=f"{percent(share)} of the squared norm is theirs: it makes the others smaller, "
            "though nothing is done with it.",
            advice="Clip the parameters that are stepped next, or freeze the rest "
            "(requires_grad_(False)).",
            numbers={"parameters": len(useless), "share of the squared norm": share},
        )


def shards(seen: Observation) -> Iterator[Finding]:
    """torch's own clipping on one process's part of FSDP's parameters."""
    for clips in sites(c for c in seen.clips if c.flat and c.kind == "norm"):
        yield Finding(
            code="shards",
            severity="wrong",
            sentence=f"{clips[0].by} sees only this process's shards of FSDP's parameters.",
            where=str(clips[0].place),
            why="Every process clips by the norm of its own part, so parts are scaled "
            "differently, and none by the norm of the whole gradient.",
            advice="Call the FSDP module's own clip_grad_norm_(max_norm), or use fully_shard, "
            "whose parameters torch's and gclip's clipping know as a whole.",
            numbers={"calls": len(clips)},
        )


def _share(clip: Clip, numbers: list[int]) -> float:
    square = sum(norm * norm for norm in clip.before.values())
    own = sum(clip.before.get(n, 0.0) ** 2 for n in numbers)
    return own / square if square > 0 and math.isfinite(square) else math.nan
