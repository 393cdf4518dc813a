"""All diagnoses, in the order in which their findings are listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from gclip.doctor.absence import no_clipping, no_steps
from gclip.doctor.coverage import duplicates, empty_list, shards, unclipped, unstepped
from gclip.doctor.effects import epsilon, in_backward, scale_free
from gclip.doctor.events import Observation
from gclip.doctor.findings import Finding, Findings
from gclip.doctor.limits import always, bad_limit, never
from gclip.doctor.nonfinite import nan_from_norm, stepped_nonfinite
from gclip.doctor.order import after_step, before_backward, micro_batches, scaled, subsets, twice
from gclip.doctor.sites import without_rescaling
from gclip.text.screen import plural

_DIAGNOSES: tuple[Callable[[Observation], Iterable[Finding]], ...] = (
    no_steps, after_step, before_backward, empty_list, in_backward, scaled, bad_limit, shards,
    duplicates, stepped_nonfinite, nan_from_norm, micro_batches, unstepped, epsilon, unclipped,
    subsets, twice, scale_free, always, never, no_clipping,
)  # fmt: skip


def diagnose(seen: Observation) -> Findings:
    """What there is to say of a loop."""
    cleaned = without_rescaling(seen)
    return Findings((f for diagnosis in _DIAGNOSES for f in diagnosis(cleaned)), _setting(seen))


def _setting(seen: Observation) -> str:
    """``20 steps of SGD watched``."""
    counts = Counter(step.optimizer for step in seen.steps)
    if not counts:
        return "no steps watched"
    if len(counts) > 5:  # one for each parameter
        return f"{plural(len(seen.steps), 'step')} of {len(counts)} optimizers watched"
    each = [f"{plural(n, 'step')} of {seen.players[p].label}" for p, n in sorted(counts.items())]
    return f"{', '.join(each)} watched"
