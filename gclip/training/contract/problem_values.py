"""Promises about numbers: what is measured, that measuring changes nothing, what diverges."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gclip.training.contract.bits import bits, changed
from gclip.training.contract.problem_subject import (
    CONTRACT,
    ProblemSubject,
    evaluate,
    snapshot,
)

SPLITS = ("test", "validation")
HUGE = 1e38
"""A learning rate at which weights leave float32."""


@CONTRACT.promise("evaluate gives the metric on both splits: finite, and within its range")
def measured(subject: ProblemSubject) -> Iterator[str]:
    """Of runs with defaults, at every epoch's end."""
    for split in SPLITS:
        result = subject.run(split=split)
        metric = result.metric
        if result.status != "finished":
            yield f"a run on {split} with the defaults has {result.status}: {result.message}"
            continue
        column = "accuracy" if metric.name == "accuracy" else "score"
        for point in result.curve:
            score = float(point[column])
            if not math.isfinite(score) or not metric.low <= score <= metric.high:
                yield (
                    f"epoch {point['epoch']} on {split}: the {metric.name} is {score:g}, and its "
                    f"range is {metric.low:g} to {metric.high:g}"
                )


@CONTRACT.promise("evaluate changes nothing: no parameter, nothing kept, no generator")
def evaluates(subject: ProblemSubject) -> Iterator[str]:
    """Called twice after an epoch, it says the same and leaves all as it was."""
    for split in SPLITS:
        with subject.by_hand(split=split) as run:
            run.train_epoch(lambda: True)
            before = bits(snapshot(run))
            first = evaluate(run)
            after = bits(snapshot(run))
            for path in changed(before, after):
                yield f"evaluate on {split} changes {path}"
            second = evaluate(run)
        for name in first:
            a, b = first[name], second[name]
            if a != b and not (math.isnan(a) and math.isnan(b)):
                yield f"evaluate on {split} says {name} {a:.9g}, and called again {b:.9g}"


@CONTRACT.promise("a run that blows up is told as diverged, and scores the metric's worst")
def diverges(subject: ProblemSubject) -> Iterator[str]:
    """At a learning rate that no weights survive, without clipping."""
    result = subject.run(optimizer="sgd", lr=HUGE, strategy="none")
    if result.status != "diverged":
        yield (
            f"at lr {HUGE:g} without clipping it has {result.status}, its last loss being "
            f"{result.steps['loss'][-1]:g}; a loss must become inf or NaN where the weights do"
        )
    elif result.score != result.metric.worst:
        yield f"it scores {result.score:g}, though the worst is {result.metric.worst:g}"
