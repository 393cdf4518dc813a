"""Diagnoses of clipping together with an optimizer: where it cannot matter, or stalls it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gclip.clipping.verdicts import LIMITED
from gclip.doctor.events import Observation, Step, total
from gclip.doctor.findings import Finding
from gclip.doctor.limits import is_always
from gclip.doctor.optimizer_kinds import kind_of
from gclip.doctor.sites import FEWEST, limited_share, sites, usable
from gclip.doctor.words import by, percent, placed, quantile, shown
from gclip.text.screen import plural

_NEAR = 10.0
"""Gradients smaller than ε times this feel it."""

_REASONS = {
    "adaptive": "divides by the gradients' own running size, so that a factor which is the same at "
    "every step cancels",
    "sign": "uses only signs, which no factor changes",
    "normalised": "gives its steps a size of their own, whatever the gradients' is",
}


def scale_free(seen: Observation) -> Iterator[Finding]:
    """A limit that always acts, on an optimizer that undoes it."""
    for clips in sites(seen.clips):
        met = [c for c in usable(clips) if c.kind != "value"]
        if not is_always(met):
            continue
        for player in seen.players:
            kind = kind_of(player.kind)
            if kind == "plain" or not player.params.intersection(met[-1].params):
                continue
            factors = [c.factor for c in met if c.factor > 0]
            low, high = quantile(factors, 0.1), quantile(factors, 0.9)
            yield Finding(
                code="scale-free",
                severity="doubtful",
                sentence=f"{by(met)} limits {percent(limited_share(met))} of the steps, but "
                f"{player.label} {_REASONS[kind]}.",
                where=str(met[0].place),
                why="Half or twice the limit would make nearly the same steps. What is left of "
                f"clipping is that steps with large gradients count less beside the others: its "
                f"factor went from {shown(low)} to {shown(high)} (10 % and 90 % quantile).",
                advice="Tune the learning rate, not the limit; or raise the limit until only "
                "spikes reach it.",
                numbers={
                    "calls": len(met), "share": limited_share(met), "factor, 10 %": low,
                    "factor, 90 %": high,
                },
            )  # fmt: skip


def epsilon(seen: Observation) -> Iterator[Finding]:
    """Gradients clipped to a size at which an adaptive optimizer's ε decides."""
    for number, player in enumerate(seen.players):
        if kind_of(player.kind) == "plain" or not player.eps:
            continue
        steps = [
            s
            for s in seen.of(number)
            if s.finite and s.elements and any(c.factor < LIMITED for c in s.clips)
        ]
        sizes = [_rms(step) for step in steps]
        if len(sizes) < FEWEST or not 0 < (size := quantile(sizes, 0.5)) < _NEAR * player.eps:
            continue
        share = size / (size + player.eps)
        yield Finding(
            code="epsilon",
            severity="wrong",
            sentence=f"Clipping leaves {player.label} gradients of {shown(size)} an element (root "
            f"mean square), near its eps of {shown(player.eps)}.",
            where=placed(c.place for c in steps[-1].clips),
            why=f"It divides by their size plus eps, so the steps shrink to about "
            f"{percent(share)} of what the learning rate says, and further with the limit.",
            advice="Raise the limit, or lower eps with it.",
            numbers={"size of an element": size, "eps": player.eps, "share of a step": share},
        )


def in_backward(seen: Observation) -> Iterator[Finding]:
    """Optimizers that step while the backward pass still goes on."""
    inside = [s for s in seen.steps if s.inside]
    if not inside:
        return
    params = {n for s in inside for n in seen.players[s.optimizer].params}
    late = [c for c in seen.clips if c.met in ("none", "stepped") and params.intersection(c.params)]
    optimizers = len({s.optimizer for s in inside})
    yield Finding(
        code="in-backward",
        severity="wrong" if late else "note",
        sentence=f"{plural(optimizers, 'optimizer')} for {plural(len(params), 'parameter')} "
        f"{'steps' if optimizers == 1 else 'step'} within backward()"
        + (
            f", and {late[0].by} after it finds nothing left to clip."
            if late
            else ", where no norm of all gradients is known yet."
        ),
        where=placed((late[0].place, inside[-1].place) if late else (inside[-1].place,)),
        why="Each gradient is used, and usually freed, as soon as it is there; the norm of all of "
        "them is known only after the last.",
        advice="Clip each gradient by its own norm in the hook, before its optimizer steps; or "
        "step after backward().",
        numbers={"steps": len(inside), "optimizers": optimizers, "clips too late": len(late)},
    )


def _rms(step: Step) -> float:
    return total(step.norms) / math.sqrt(step.elements)
