"""What to call what clipping did: a safety net, a limiter of every step, or something between.

A verdict is about the share of steps that were *limited*: whose total gradient norm shrank by more
than 1 %. A step may be clipped without that (a clamp that touches one element of a million).
"""

from __future__ import annotations

import math

LIMITED = 0.99
"""A step counts as limited when clipping left less of the total norm than this."""
SELDOM, NEARLY_ALWAYS, MOSTLY = 0.1, 0.99, 0.5
_ROUNDING = 1e-9
"""The mean of three times .99 is a bit less in floating point; that is no other verdict."""

NEVER, SAFETY_NET, LIMITER, ALWAYS = "never clips", "safety net", "step-size limiter", "always on"
MOSTLY_SKIPPED, MOSTLY_NOT_FINITE = "mostly skipped", "mostly not finite"

DEFINITION = (
    "limited: share of the steps whose gradient norm shrank by more than 1 %. By it, the verdict: "
    f"{NEVER} (nothing at all was clipped), {SAFETY_NET} (at most 10 %), {LIMITER}, {ALWAYS} (99 % "
    f"or more); {MOSTLY_SKIPPED} or {MOSTLY_NOT_FINITE}: more than half of the steps."
)
"""To be shown wherever verdicts are."""


def verdict_of(
    *, clip_rate: float, limited_rate: float, skipped: float = 0.0, not_finite: float = 0.0
) -> str:
    """The verdict on these shares, of one run's steps or of several runs together.

    Args:
        clip_rate: of steps in which anything was clipped.
        limited_rate: of steps that were limited; both of the steps with finite gradients.
        skipped: of all steps, those left out.
        not_finite: of all steps, those whose gradients were not finite.

    Returns:
        One of the verdicts above; "" where the rates are not known (NaN).
    """
    if skipped > MOSTLY:
        return MOSTLY_SKIPPED
    if not_finite > MOSTLY:
        return MOSTLY_NOT_FINITE
    if math.isnan(clip_rate) or math.isnan(limited_rate):
        return ""
    if clip_rate == 0:
        return NEVER
    if limited_rate <= SELDOM + _ROUNDING:
        return SAFETY_NET
    return ALWAYS if limited_rate >= NEARLY_ALWAYS - _ROUNDING else LIMITER
