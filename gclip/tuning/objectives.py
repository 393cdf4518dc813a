"""What does a study seek? Accuracy; or, with it, to clip less or to cost less.

A trial's values are the means over its runs. A diverged run counts with the worst there is, never
with NaN, which a sampler would not see: chance as its accuracy, clipped in every step, and as dear
as the dearest trial so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from gclip.errors import UsageError, choose

if TYPE_CHECKING:
    from gclip.training import RunResult

Direction = Literal["maximize", "minimize"]
OBJECTIVES: dict[str, Direction] = {
    "accuracy": "maximize",
    "clip_rate": "minimize",
    "cost": "minimize",
}
"""accuracy on the split; share of the steps clipped; seconds of wall clock a run."""


def check_objectives(objectives: Sequence[str]) -> tuple[str, ...]:
    """The objectives, accuracy first.

    Raises:
        UsageError: an unknown one, one named twice, or no accuracy among them: never to clip, and
            to train nothing, would be best.
    """
    for name in objectives:
        choose(name, OBJECTIVES, "objective")
    twice = next((name for name in objectives if objectives.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"the objective {twice} is there twice; name each once")
    if "accuracy" not in objectives:
        raise UsageError(
            f"accuracy must be among the objectives, but got {', '.join(objectives) or 'none'}"
        )
    return tuple(sorted(objectives, key=list(OBJECTIVES).index))


def directions(objectives: Sequence[str]) -> list[Direction]:
    """Which way each objective goes."""
    return [OBJECTIVES[name] for name in objectives]


def values_of(
    results: Sequence[RunResult], objectives: Sequence[str], *, dearest: float = 0.0
) -> list[float]:
    """What a trial of these runs is told with: always finite numbers.

    Args:
        dearest: the largest cost of the trials before, which a diverged one is given.
    """
    return [
        sum(_value(result, name, dearest) for result in results) / len(results)
        for name in objectives
    ]


def _value(result: RunResult, name: str, dearest: float) -> float:
    diverged = result.status == "diverged"
    if name == "accuracy":
        return result.accuracy if math.isfinite(result.accuracy) else 0.0
    if name == "clip_rate":
        rate = float(result.clipping.get("clip_rate", 1.0))
        return 1.0 if diverged or not math.isfinite(rate) else rate
    if not diverged:
        return result.seconds
    # It stopped early, and must not look cheap for that: what the whole run would have taken.
    reached = max(1, result.curve[-1]["epoch"]) if result.curve else 1
    return max(dearest, result.seconds * result.config.epochs / reached)
