"""Where there is nothing to judge: no step, or no clipping."""

from __future__ import annotations

from collections.abc import Iterator

from gclip.doctor.events import Observation, total
from gclip.doctor.findings import Finding
from gclip.doctor.words import placed, quantile, shown
from gclip.text.screen import plural


def no_steps(seen: Observation) -> Iterator[Finding]:
    """No optimizer step was seen."""
    if seen.steps:
        return
    why = "Was the loop within the with block, and are these the optimizers that it steps?"
    if seen.skipped:
        why = (
            f"A gradient scaler left out {plural(seen.skipped, 'step')}: the loss scale is still "
            "too large, or gradients are not finite."
        )
    left_out = sum(clip.skipped for clip in seen.clips)
    if left_out:
        why = f"gclip left out {plural(left_out, 'step')}: see the strategy's rule, and NaN."
    yield Finding(
        code="no-steps",
        severity="wrong",
        sentence="No step of these optimizers was seen.",
        why=why,
        advice="Watch at least one whole step, from zero_grad() to optimizer.step().",
        numbers={"left out by a scaler": seen.skipped, "left out by gclip": left_out},
    )


def no_clipping(seen: Observation) -> Iterator[Finding]:
    """Optimizers whose gradients nothing clips."""
    for number, player in enumerate(seen.players):
        steps = seen.of(number)
        if not steps or any(s.inside for s in steps):
            continue
        if any(player.params.intersection(c.params) for c in seen.clips):
            continue
        norms = [total(step.norms) for step in steps if step.finite]
        if not norms:
            continue
        low, middle, high = (quantile(norms, share) for share in (0.1, 0.5, 0.9))
        hooks = len(seen.hooked & player.params)
        unseen = (
            f" {plural(hooks, 'parameter')} of it have hooks of their own: what those do within "
            "backward() is not seen."
            if hooks
            else ""
        )
        yield Finding(
            code="none",
            severity="note",
            sentence=f"Nothing clips the gradients of {player.label}: their norm is {shown(middle)}"
            f" in the middle, from {shown(low)} to {shown(high)} (10 % and 90 % quantile), at "
            f"most {shown(max(norms))}.",
            where=placed(step.place for step in steps),
            why="That is no fault where training is stable; one spike can end it." + unseen,
            advice=f"A limit of {shown(high)} would have acted on one step in ten of these; "
            "`gclip.Survey` suggests one for every strategy.",
            numbers={
                "steps": len(norms), "norm, 10 %": low, "norm, 50 %": middle, "norm, 90 %": high,
                "largest norm": max(norms),
            },
        )  # fmt: skip
