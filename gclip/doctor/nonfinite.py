"""Diagnoses of gradients that are inf or NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gclip.doctor.events import Norms, Observation
from gclip.doctor.findings import Finding
from gclip.doctor.sites import sites
from gclip.doctor.words import listed, placed
from gclip.text.screen import plural


def stepped_nonfinite(seen: Observation) -> Iterator[Finding]:
    """Steps that were made with them."""
    bad = [step for step in seen.steps if not step.finite]
    if not bad:
        return
    first = bad[0]
    names = [seen.names[n] for n, norm in first.norms.items() if not math.isfinite(norm)]
    yield Finding(
        code="nonfinite-stepped",
        severity="wrong",
        sentence=f"{len(bad)} of {plural(len(seen.steps), 'step')} used gradients that are inf or "
        f"NaN, the first of them in {listed(names)}.",
        where=placed(step.place for step in bad),
        why="One such step makes weights and the optimizer's state NaN, for good; no limit helps.",
        advice="Leave the step out: gclip.attach(optimizer, …) does, or ask "
        "`if not clipper.step().skipped`; torch's clip_grad_norm_ raises with "
        "error_if_nonfinite=True.",
        numbers={"steps": len(seen.steps), "not finite": len(bad)},
    )


def nan_from_norm(seen: Observation) -> Iterator[Finding]:
    """Norms that are not finite, by which finite gradients were multiplied."""
    for clips in sites(seen.clips):
        bad = [
            c
            for c in clips
            if c.kind == "norm" and not c.checked and not math.isfinite(c.size) and c.before
        ]
        spread = [c for c in bad if _nonfinite(c.before) < len(c.before)]
        if not spread:
            continue
        first = spread[0]
        how = "becomes NaN" if math.isnan(first.size) else "becomes zero, or NaN where it is inf"
        yield Finding(
            code="nan-from-norm",
            severity="wrong",
            sentence=f"{clips[0].by} multiplied all gradients by a norm of {first.size:g} in "
            f"{plural(len(bad), 'step')}; {_nonfinite(first.before)} of {len(first.before)} "
            "were not finite.",
            where=str(clips[0].place),
            why=f"With it every gradient {how}, and so do the weights after the step.",
            advice="Set error_if_nonfinite=True, or leave such steps out: gclip.attach(optimizer, "
            "…) does.",
            numbers={"steps": len(bad), "not finite before": _nonfinite(first.before)},
        )


def _nonfinite(norms: Norms) -> int:
    return sum(not math.isfinite(norm) for norm in norms.values())
