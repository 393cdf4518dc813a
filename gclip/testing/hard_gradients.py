"""Promises about hard gradients: zero, missing, late, inf, NaN, listed twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gclip.clipping.base_clipper import Nonfinite
from gclip.clipping.state import tensors_of
from gclip.core.strategy import Strategy
from gclip.testing.applicability import DoesNotApply
from gclip.testing.comparing import differ, size_of
from gclip.testing.gradients import SHAPES, Gradients, gradients, present
from gclip.testing.promises import promise
from gclip.testing.subject import Subject, shown

LATE = "mix.weight"
"""The parameter that is missing, or comes late; the only one of its layer, and the last."""
NONFINITE = {2: math.inf, 4: math.nan, 5: -math.inf}
"""What stands in a gradient at which steps."""
LARGE = {1: 2e19, 4: 1e37}
"""About how large elements are at which steps: squares overflow, and norms nearly do."""
LARGE_STEPS = 9
ZERO_STEPS = (0, 4, 5)
"""Before which steps there is one of zeros."""


@promise("a gradient of zero stays zero, and leaves no NaN behind")
def zero(subject: Subject) -> Iterator[str]:
    for rule in subject.cls.rules:
        strategy = subject.try_create(rule=rule, floor=0.0)
        if strategy is None:
            continue
        rig, label = subject.rig(strategy), shown(strategy)
        for step in range(6):
            size = None if step in (3, 4) else 0.0
            result = rig.step(gradients(rig.shapes, step, rig.seed, size))
            for name, grad in result.grads.items():
                if grad is not None and size == 0.0 and bool(grad.any()):
                    yield f"{label}: the zero gradient of {name} becomes {grad.flatten()[0]:g}"
                if grad is not None and bool(torch.isnan(grad).any()):
                    yield f"{label}: {name} is NaN in step {step}, after gradients of zero"
            if not subject.is_transform and bool(torch.isnan(result.limit).any()):
                yield f"{label}: the limit is NaN in step {step}, after gradients of zero"


@promise("a step whose gradients are all zero never enters memory")
def zero_step(subject: Subject) -> Iterator[str]:
    if not subject.remembers:
        raise DoesNotApply("it remembers nothing")
    for side in subject.sides:
        strategy = subject.create(side=side)
        rig, clean = subject.rig(strategy), subject.rig(strategy)
        for step in range(12):
            grads = gradients(rig.shapes, step, rig.seed)
            if step in ZERO_STEPS:
                rig.step(gradients(rig.shapes, step, rig.seed, 0.0))
            actual, expected = present(rig.step(grads).grads), present(clean.step(grads).grads)
            for name, grad in actual.items():
                if not torch.equal(grad, expected[name]):
                    yield (
                        f"side {side}, step {step}: after steps of zeros the norm of {name} is "
                        f"{size_of(grad):g}, but {size_of(expected[name]):g} had they not been"
                    )


@promise("a parameter without a gradient stays without, and changes nothing for the others")
def missing(subject: Subject) -> Iterator[str]:
    strategy = subject.cls(**subject.apart())
    remaining = {name: shape for name, shape in SHAPES.items() if name != LATE}
    rig, without = subject.rig(strategy), subject.rig(strategy, shapes=remaining)
    without.copy_parameters(rig)  # the same weights, whatever else was drawn
    for step in range(9):
        grads = {**gradients(rig.shapes, step, rig.seed), LATE: None}
        result, reference = rig.step(grads), without.step({name: grads[name] for name in remaining})
        if result.grads[LATE] is not None:
            norm = size_of(result.grads[LATE])
            yield f"step {step}: the missing gradient becomes one of norm {norm:g}"
        yield from differ(step, result.grads, reference.grads, rig, "without that parameter")


@promise("memory of a parameter starts with its own first gradient, however late; it is not zeroed")
def late(subject: Subject) -> Iterator[str]:
    rule: dict[str, Any] = {}
    if subject.cls().rule == "skip":  # which skips all for the sake of one, with another memory
        rule = subject.plain("scale", "clamp", "normalize", "soft")
    strategy = subject.create(**subject.apart(), **rule)
    start, count = 4, 32
    rig, fresh = subject.rig(strategy), subject.rig(strategy)
    for step in range(start):
        rig.step({**gradients(rig.shapes, step, rig.seed), LATE: None})
    for step in range(start, start + count):
        grads = gradients(rig.shapes, step, rig.seed)
        actual, expected = rig.step(grads).grads[LATE], fresh.step(grads).grads[LATE]
        yield from differ(step, {LATE: actual}, {LATE: expected}, rig, "with a fresh memory")
        if not size_of(actual):
            yield f"step {step}: a gradient of norm {size_of(grads[LATE]):g} of {LATE} becomes zero"


@promise("a step with an inf or a NaN is skipped, told or kept as asked, and leaves no trace")
def not_finite(subject: Subject) -> Iterator[str]:
    for side in subject.sides:
        strategy = subject.create(side=side)
        yield from _leaves_no_trace(subject, strategy, "skip")
        yield from _leaves_no_trace(subject, strategy, "keep")
        rig = subject.rig(strategy, nonfinite="raise")
        try:
            rig.step(_with_value(gradients(rig.shapes, 0, rig.seed), math.nan))
        except FloatingPointError as error:
            if "head.bias" not in str(error):
                yield f"nonfinite='raise' does not name the parameter head.bias: {error}"
        else:
            yield "nonfinite='raise' lets a NaN pass"


def _leaves_no_trace(subject: Subject, strategy: Strategy, policy: Nonfinite) -> Iterator[str]:
    rig, clean = (subject.rig(strategy, nonfinite=policy) for _ in range(2))
    for step in range(12):
        grads = gradients(rig.shapes, step, rig.seed)
        setting = f"side {strategy.side}, nonfinite={policy!r}, step {step}"
        if step not in NONFINITE:
            actual, expected = present(rig.step(grads).grads), present(clean.step(grads).grads)
            for name, grad in actual.items():
                if not torch.equal(grad, expected[name]):
                    yield (
                        f"{setting}: after steps that were not finite the norm of {name} is "
                        f"{size_of(grad):g}, but {size_of(expected[name]):g} had they not been"
                    )
            continue
        before = rig.memory
        result = rig.step(_with_value(grads, NONFINITE[step]))
        if bool(result.finite):
            yield f"{setting}: a gradient with {NONFINITE[step]} is called finite"
        if policy == "skip" and any(size_of(grad) != 0 for grad in result.grads.values()):
            yield f"{setting}: the gradients are not zero after {NONFINITE[step]}"
        if not _same(before, rig.memory):
            yield f"{setting}: {NONFINITE[step]} in a gradient changes memory"


@promise("a finite gradient, however large, leaves no NaN or inf behind, in memory or in a limit")
def large(subject: Subject) -> Iterator[str]:
    for side in subject.sides:
        for settings in ({}, *filter(None, [subject.short])):
            strategy = subject.try_create(side=side, **settings)
            if strategy is not None:
                yield from _outlives_large_ones(subject, strategy)


def _outlives_large_ones(subject: Subject, strategy: Strategy) -> Iterator[str]:
    """Each step beside one that saw no large gradient: what is infinite there may be so here."""
    rig, clean = subject.rig(strategy), subject.rig(strategy)
    for step in range(LARGE_STEPS):
        label = f"{shown(strategy)}, step {step}"
        size = LARGE.get(step, 1e-3)
        result = rig.step(gradients(rig.shapes, step, rig.seed, size))
        reference = clean.step(gradients(rig.shapes, step, rig.seed, 1e-3))
        worse = _worse(tensors_of(rig.memory), tensors_of(clean.memory))
        if worse:
            yield f"{label}: memory has {worse} after gradients of {max(LARGE.values()):g}"
        worse = "" if subject.is_transform else _worse([result.limit], [reference.limit])
        if worse and step not in LARGE:
            yield f"{label}: the limit is {worse} after gradients of {max(LARGE.values()):g}"
        for name, grad in present(result.grads).items():
            if step not in LARGE and not bool(torch.isfinite(grad).all()):
                yield f"{label}: {name} is not finite after gradients of {max(LARGE.values()):g}"


def _worse(found: list[Tensor], reference: list[Tensor]) -> str:
    """``NaN`` or ``inf``: what is in `found` where the other has a number; "" where nothing is."""
    for one, other in zip(found, reference, strict=True):
        if bool((torch.isnan(one) & ~torch.isnan(other)).any()):
            return "NaN"
        if bool((torch.isinf(one) & torch.isfinite(other)).any()):
            return "inf"
    return ""


def _with_value(grads: Gradients, value: float) -> Gradients:
    grad = present(grads)["head.bias"].clone()
    grad[1] = value
    return {**grads, "head.bias": grad}


def _same(a: Any, b: Any) -> bool:
    """Whether two memories agree bit for bit, a count as a number or as a tensor."""
    if isinstance(a, dict) and isinstance(b, dict):
        if "levels" in a:  # a history pads a step that does not count, which changes no answer
            return True
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return bool((torch.as_tensor(a) == torch.as_tensor(b)).all())
    return bool(a == b)


@promise("a parameter that is listed twice counts once")
def listed_twice(subject: Subject) -> Iterator[str]:
    once, twice = subject.rig(), subject.rig(twice=True)
    for step in range(3):
        grads = gradients(once.shapes, step, once.seed)
        yield from differ(
            step, twice.step(grads).grads, once.step(grads).grads, once, "listed once"
        )
