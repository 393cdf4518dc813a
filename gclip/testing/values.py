"""Promises about numbers: the limit holds, what is within it stays, every setting works."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gclip.clipping.state import tensors_of
from gclip.core.seen import Elements, Seen
from gclip.core.strategy import Strategy, Transform
from gclip.testing.applicability import DoesNotApply
from gclip.testing.direct import Direct
from gclip.testing.gradients import Tensors, gradients, present
from gclip.testing.promises import promise
from gclip.testing.rigs import Rig, Step
from gclip.testing.subject import Subject, shown

THRESHOLDS = 50


@promise("no norm exceeds the limit, over 50 thresholds, and clipping twice is clipping once")
def limit(subject: Subject) -> Iterator[str]:
    if subject.is_transform:
        raise DoesNotApply("a transform has no limit")
    plain = subject.plain("scale", "clamp", "normalize", "soft")
    steps = 5 if subject.remembers else 1
    tried = 0
    for settings in subject.sweep(THRESHOLDS):
        strategy = subject.try_create(**plain, **settings, **subject.short)
        if strategy is None:
            continue
        tried += 1
        rig = subject.rig(strategy)
        for step in range(steps):
            grads = gradients(rig.shapes, step + 5, rig.seed)
            result = rig.step(grads)
            over = _over(result, rig.measured(result.grads), rig.noise)
            if over:
                yield f"{shown(strategy)}: {over}"
        if not subject.remembers and plain["rule"] in ("scale", "clamp") and _fixed(strategy):
            before, second = present(result.grads), subject.rig(strategy).step(result.grads)
            for name, grad in present(second.grads).items():
                if not torch.allclose(grad, before[name], rtol=1e-6, atol=rig.noise):
                    yield (
                        f"{shown(strategy)}: clipped again, the norm of {name} goes from "
                        f"{before[name].norm():.9g} to {grad.norm():.9g}"
                    )
    if not tried:
        yield f"with the rule {plain['rule']} it refuses all {THRESHOLDS} settings over its range"


def _over(result: Step, measured: Tensor, noise: float) -> str | None:
    for group, (norm, most) in enumerate(
        zip(measured.tolist(), result.limit.tolist(), strict=True)
    ):
        if math.isnan(most) or most < 0:
            return f"the limit of group {group} is {most:g}, for a norm of {result.norm[group]:g}"
        if not norm <= most * (1 + 1e-5) + 10 * noise:
            return (
                f"a norm of {result.norm[group]:g} becomes {norm:.7g}, above its limit {most:.7g}"
            )
    return None


def _fixed(strategy: Strategy) -> bool:
    """Whether the limit does not follow the very norm that it limits."""
    read = []

    def norm() -> Tensor:
        read.append(True)
        return torch.ones(3, dtype=torch.float32)

    three = torch.ones(3, dtype=torch.float32)
    seen = Seen(norm, weight_norm=three, size=three, lr=0.1, weight_decay=0.0, total_steps=100)
    strategy.limit(seen, strategy.remember(torch.zeros_like(three)))
    return not read


@promise("gradients within the limit keep every bit")
def within_limit(subject: Subject) -> Iterator[str]:
    plain = {} if subject.is_transform else subject.plain("scale", "clamp", "skip")
    stayed = False
    for size in (None, 1e-6):
        rig = subject.rig(subject.create(**plain))
        for step in range(12):
            grads = gradients(rig.shapes, step, rig.seed, size)
            result = rig.step(grads)
            if bool(result.skipped):
                continue
            before, after = present(rig.unclipped(grads)), present(result.grads)
            may_change = rig.names if subject.is_transform else _may_change(rig, before, result)
            for name, old in before.items():
                new = after[name]
                stayed |= bool((old == new).any())
                if torch.equal(old, new) or (name in may_change and not _rounded(old, new)):
                    continue
                how = (
                    "by rounding alone"
                    if name in may_change
                    else "though its norm is within the limit"
                )
                element = int((old != new).flatten().nonzero()[0])
                a, b = (float(each.flatten()[element]) for each in (old, new))
                yield f"step {step}: {name} changes {how}: {a:.9g} becomes {b:.9g}"
                stayed = True
    if not stayed:
        raise DoesNotApply("it changes every element of gradients of every size, as tried here")


def _may_change(rig: Rig, before: Tensors, result: Step) -> list[str]:
    """Parameters with a group beyond the limit, or raised by a band's lower end."""
    old, new = rig.measured(before), rig.measured(result.grads)
    return rig.affected((old >= result.limit * (1 - 1e-6)) | (new > old * (1 + 1e-6)))


def _rounded(before: Tensor, after: Tensor) -> bool:
    """Whether many elements changed, by no more than rounding."""
    change = (after - before).double().abs() / before.double().abs()
    return bool(((change > 0) & (change < 1e-6)).float().mean() > 0.25)


@promise("every scope, rule and side that the class declares works")
def combinations(subject: Subject) -> Iterator[str]:
    cls = subject.cls
    worked = 0
    for side, scope, rule in itertools.product(cls.sides, cls.scopes, cls.rules):
        strategy = subject.try_create(side=side, scope=scope, rule=rule)
        if strategy is None:
            strategy = subject.try_create(side=side, scope=scope, rule=rule, floor=0.0)
        if strategy is None:
            continue
        worked += 1
        try:
            message = _works(subject, strategy)
        except DoesNotApply:
            continue
        except Exception as error:
            raise type(error)(f"{shown(strategy)}: {error}") from error
        if message:
            yield f"{shown(strategy)}: {message}"
    if not worked:
        yield "it refuses every combination of its scopes, rules and sides"


def _works(subject: Subject, strategy: Strategy) -> str | None:
    rig = subject.rig(strategy)
    for step in range(3):
        result = rig.step(gradients(rig.shapes, step, rig.seed))
        after = rig.measured(result.grads)
        transform = isinstance(strategy, Transform)
        for what in ("norm", "limit", "clipped_norm", "clipped"):
            value: Tensor = getattr(result, what)
            if value.shape != after.shape:
                return f"{what} has the shape {tuple(value.shape)}, not {tuple(after.shape)}"
            if bool(torch.isnan(value).any()) and not (transform and what == "limit"):
                return f"step {step}: {what} is NaN"
        if bool((result.limit < 0).any()):
            return f"step {step}: the limit is {result.limit.min():g}, below 0"
        for name, grad in result.grads.items():
            if grad is None or grad.shape != rig.params[name].shape:
                return f"step {step}: {name} does not keep its shape"
            if not bool(torch.isfinite(grad).all()):
                return f"step {step}: {name} is not finite any more"
        if bool(result.skipped):
            continue
        mismatch = (after - result.clipped_norm).abs() > 1e-4 * after + 10 * rig.noise
        if bool(mismatch.any()):
            group = int(mismatch.nonzero()[0])
            return (
                f"step {step}: the report says a clipped norm of {result.clipped_norm[group]:g}, "
                f"and {after[group]:g} is left"
            )
    return None


@promise("limit() and transform() write to nothing they are given, and answer the same twice")
def reads_only(subject: Subject) -> Iterator[str]:
    strategy = subject.cls()
    direct = Direct(strategy, seed=subject.seed)
    for step in range(3):
        direct.step(direct.numbers(step))
    inputs, weight, size = (t.clone() for t in (direct.numbers(3), direct.weight, direct.size))
    memory = copy.deepcopy(direct.memory)
    arguments = {"the norms": inputs, "the weights' norms": weight, "the sizes": size}
    if subject.is_transform:
        arguments = {"the values": inputs, "the weights": weight}
    entries = {f"memory (tensor {i})": each for i, each in enumerate(tensors_of(memory))}
    tensors = {**arguments, **entries}
    versions = {what: tensor._version for what, tensor in tensors.items()}
    first, second = (_answer(strategy, inputs, weight, size, memory) for _ in range(2))
    for what, tensor in tensors.items():
        if tensor._version != versions[what]:
            yield f"it writes to {what}"
    for a, b in zip(first, second, strict=True):
        if not torch.equal(a, b):
            yield f"asked twice about the same step it answers {a.tolist()} and {b.tolist()}"


def _answer(
    strategy: Strategy, inputs: Tensor, weight: Tensor, size: Tensor, memory: Any
) -> list[Tensor]:
    if isinstance(strategy, Transform):
        elements = Elements(inputs, step=3, weight=weight, grad=inputs, lr=0.1)
        values, new = strategy.transform(elements, memory)
        return [values.clone(), *(t.clone() for t in tensors_of(new))]
    seen = Seen(
        inputs, step=3, weight_norm=weight, size=size, lr=0.1, weight_decay=0.0, total_steps=100
    )
    limit = strategy.limit(seen, memory)
    ends = limit if isinstance(limit, tuple) else (limit,)
    return [torch.as_tensor(end).clone() for end in ends]
