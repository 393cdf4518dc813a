"""Promises about how gradients lie in memory, and how many bits they have there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gclip.core.strategy import Transform
from gclip.testing.comparing import apart, differ, size_of
from gclip.testing.gradients import Gradients, Shapes, Tensors, gradients, present
from gclip.testing.promises import promise
from gclip.testing.rigs import Rig, Step
from gclip.testing.subject import Subject

ALIKE: Shapes = {"a.weight": (4, 6), "b.weight": (4, 6), "c.weight": (6, 4), "d.bias": (24,)}
SAMPLE: Shapes = {"a.bias": (5,), "b.bias": (5,), "c.bias": (4,)}
SIZES = (1e100, 1e-60)
STEPS = 4


def _one_tensor(base: Tensor) -> Gradients:
    return {name: base.view(shape) for name, shape in ALIKE.items()}


def _overlapping(base: Tensor) -> Gradients:
    flat = torch.cat([base.flatten(), base.flatten().flip(0)])
    return {name: flat[5 * i : 5 * i + 24].view(s) for i, (name, s) in enumerate(ALIKE.items())}


def _expanded(base: Tensor) -> Gradients:
    row, short, number = base[:1], base[1:2, :4], base[2, :1]
    return {"a.weight": row.expand(4, 6), "b.weight": number.expand(4, 6),
            "c.weight": short.expand(6, 4), "d.bias": number.expand(24)}  # fmt: skip


def _one_bucket(base: Tensor) -> Gradients:
    rows = torch.stack([base.flatten() * size for size in (1.0, 3.0, 0.3, 2.0)])
    return {name: row.view(ALIKE[name]) for name, row in zip(ALIKE, rows, strict=True)}


LAYOUTS: dict[str, Callable[[Tensor], Gradients]] = {
    "that are one tensor": _one_tensor,
    "that overlap": _overlapping,
    "that are expanded": _expanded,
    "that lie side by side in one tensor": _one_bucket,
}


@promise("gradients that share memory are each clipped as their own")
def shared_memory(subject: Subject) -> Iterator[str]:
    if subject.cls().side == "sample":
        yield from _of_examples(subject)
        return
    for name, layout in LAYOUTS.items():
        sharing, own = subject.rig(shapes=ALIKE, copies=False), subject.rig(shapes=ALIKE)
        for step in range(STEPS):
            base = present(gradients({"all": (4, 6)}, step, subject.seed))["all"]
            expected = own.step(layout(base)).grads
            actual = sharing.step(layout(base.clone())).grads
            yield from (
                f"gradients {name}: {message}" for message in _apart(step, actual, expected, own)
            )


def _of_examples(subject: Subject) -> Iterator[str]:
    sharing, own = subject.rig(shapes=SAMPLE, copies=False), subject.rig(shapes=SAMPLE)
    for step in range(STEPS):
        grad = present(gradients(SAMPLE, step, subject.seed))["a.bias"]
        grads: Gradients = {"a.bias": grad, "b.bias": grad.clone(), "c.bias": torch.ones(4)}
        expected, actual = own.step(grads).grads, sharing.step(grads).grads
        yield from _apart(step, actual, expected, own)


def _apart(step: int, actual: Gradients, expected: Gradients, rig: Rig) -> Iterator[str]:
    return differ(step, actual, expected, rig, "where each has memory of its own")


@promise("float64 gradients are measured in float64: 1e100 is finite, and 1e-60 is not zero")
def float64(subject: Subject) -> Iterator[str]:
    for size in SIZES:
        rig, usual = (subject.rig(dtype=torch.float64) for _ in range(2))
        if rig.noise > size:  # an update that a weight of 0.5 would not feel
            for param in (*rig.params.values(), *usual.params.values()):
                param.data.zero_()
        for step in range(STEPS):
            base = _calm(rig, step)
            grads: Gradients = {name: grad.double() * size for name, grad in base.items()}
            result = rig.step(grads)
            reference = usual.step({name: grad.double() for name, grad in base.items()})
            yield from (f"step {step}: {message}" for message in _measured(rig, grads, result))
            if bool(result.skipped):
                continue
            for name, clipped in present(result.grads).items():
                what = f"{name} of norm {size_of(grads[name]):g}"
                if not bool(torch.isfinite(clipped).all()):
                    yield f"step {step}: {what} is not finite any more"
                elif not bool(clipped.any()) and size_of(reference.grads[name]):
                    yield f"step {step}: {what} becomes zero"


def _measured(rig: Rig, grads: Gradients, result: Step) -> Iterator[str]:
    expected = rig.measured(rig.unclipped(grads))
    norm = f"a norm of {float(expected[0]):g}"
    if not bool(result.finite):
        yield f"{norm} is not taken for a finite one"
    if result.norm.dtype != torch.float64 or apart(result.norm, expected, 1e-9, 0.0):
        kind = str(result.norm.dtype).removeprefix("torch.")
        yield f"{norm} is measured as {float(result.norm.flatten()[0]):g} in {kind}"
    if not isinstance(rig.strategy, Transform) and bool(torch.isnan(result.limit).any()):
        yield f"for {norm} the limit is NaN"


def _calm(rig: Rig, step: int) -> Tensors:
    return present(gradients(rig.shapes, step, rig.seed, 1.0))
