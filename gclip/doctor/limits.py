"""Diagnoses of limits: no limit at all, one never reached, one that always acts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from gclip.doctor.events import Clip, Observation
from gclip.doctor.findings import Finding
from gclip.doctor.optimizer_kinds import kind_of
from gclip.doctor.sites import FEWEST, limited_share, sites, usable
from gclip.doctor.words import by, percent, quantile, shown
from gclip.text.screen import plural

ALWAYS = 0.9
"""From this share of the calls on, a limit sets the size of the steps."""


def bad_limit(seen: Observation) -> Iterator[Finding]:
    """Limits that are zero, negative or NaN."""
    effects = {
        "zero": "All gradients become zero: nothing is learned from them.",
        "negative": "torch multiplies by limit over norm: the gradients change their sign, and "
        "the steps go uphill.",
        "clamped": "All elements are set to one number, whatever the gradients say.",
        "NaN": "All gradients become NaN, and with them the weights.",
    }
    for clips in sites(seen.clips):
        bad = [c for c in clips if c.limit is not None and not c.limit > 0]
        if not bad:
            continue
        limit = bad[-1].limit or 0.0
        kind = "NaN" if math.isnan(limit) else "zero" if limit == 0 else "negative"
        if kind == "negative" and bad[-1].kind == "value":
            kind = "clamped"
        yield Finding(
            code="bad-limit",
            severity="wrong",
            sentence=f"{clips[0].by} has a limit of {shown(limit)} in {len(bad)} of "
            f"{plural(len(clips), 'call')}.",
            where=str(clips[0].place),
            why=effects[kind],
            advice="A limit is a number above 0; to clip nothing, leave the call out, or give inf.",
            numbers={"limit": limit, "calls": len(bad)},
        )


def never(seen: Observation) -> Iterator[Finding]:
    """Limits that no gradient reached."""
    for clips in sites(seen.clips):
        met = [c for c in usable(clips) if c.kind != "hand"]
        if len(met) < FEWEST or 2 * len(met) < len(clips) or any(c.factor < 1 - 1e-6 for c in met):
            continue
        sizes = [c.size for c in met if c.limit is not None and math.isfinite(c.size)]
        largest = max(sizes, default=math.nan)
        limit = met[-1].limit
        if limit is not None and any(c.size > c.limit for c in met if c.limit is not None):
            continue  # it was reached, by less than the norms can tell
        numbers: dict[str, float | int | str] = {"calls": len(met)}
        beside = ""
        if limit is not None and sizes:
            numbers |= {"limit": limit, "largest": largest}
            what = "element" if met[-1].kind == "value" else "norm"
            beside = f": the largest {what} was {shown(largest)}, the limit is {shown(limit)}"
        yield Finding(
            code="never",
            severity="note",
            sentence=f"{met[0].by} changed nothing in {plural(len(met), 'call')}{beside}.",
            where=str(met[0].place),
            why="As a safety net it may be meant so; as a part of the recipe it does nothing.",
            advice="Watch more steps, the first ones of a training and those after a change of "
            "the learning rate; `gclip survey` suggests a limit that would act.",
            numbers=numbers,
        )


def always(seen: Observation) -> Iterator[Finding]:
    """Limits that act on nearly every step: they set the step's size."""
    for clips in sites(seen.clips):
        met = usable(clips)
        if not is_always(met):
            continue
        players = [p for p in seen.players if p.params.intersection(met[-1].params)]
        if any(kind_of(p.kind) != "plain" for p in players) and met[0].kind != "value":
            continue  # for those it means something else: `effects.scale_free`
        factors = [c.factor for c in met]
        mean, share = sum(factors) / len(factors), limited_share(met)
        rates = {r for s in seen.steps if seen.players[s.optimizer] in players for r in s.rates}
        numbers: dict[str, float | int | str] = {
            "calls": len(met), "share": share, "mean factor": mean,
            "median norm": quantile([_norm(c) for c in met], 0.5),
        }  # fmt: skip
        amounts = f"the gradients are multiplied by {shown(mean)} on average"
        if len(rates) == 1 and met[0].kind != "value":
            rate = rates.pop()
            numbers |= {"learning rate": rate, "effective learning rate": rate * mean}
            amounts = (
                f"with the learning rate {shown(rate)} the steps are those of a rate of "
                f"{shown(rate * mean)}, on average"
            )
        yield Finding(
            code="always",
            severity="doubtful",
            sentence=f"{by(met)} limits {percent(share)} of the steps: it is no safety net, but "
            "sets their size.",
            where=str(met[0].place),
            why=f"Here {amounts}; a change of the limit is a change of the learning rate.",
            advice="Tune limit and learning rate together, or raise the limit until only spikes "
            "reach it.",
            numbers=numbers,
        )


def is_always(clips: Sequence[Clip]) -> bool:
    """Whether these clips act on nearly all that they meet."""
    return len(clips) >= FEWEST and limited_share(clips) >= ALWAYS


def _norm(clip: Clip) -> float:
    return math.hypot(*clip.before.values())
