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


def _one_tensor(made: Tensor) -> Gradients:
    return {name: made.view(shape) for name, shape in ALIKE.items()}


def _overlapping(made: Tensor) -> Gradients:
    flat = torch.cat([made.flatten(), made.flatten().flip(0)])
    return {name: flat[5 * i : 5 * i + 24].view(s) for i, (name, s) in enumerate(ALIKE.items())}


def _expanded(made: Tensor) -> Gradients:
    row, short, number = made[:1], made[1:2, :4], made[2, :1]
    return {"a.weight": row.expand(4, 6), "b.weight": number.expand(4, 6),
            "c.weight": short.expand(6, 4), "d.bias": number.expand(24)}  # fmt: skip


def _one_bucket(made: Tensor) -> Gradients:
    rows = torch.stack([made.flatten() * size for size in (1.0, 3.0, 0.3, 2.0)])
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
    for how, layout in LAYOUTS.items():
        sharing, own = subject.rig(shapes=ALIKE, copies=False), subject.rig(shapes=ALIKE)
        for step in range(STEPS):
            source = present(gradients({"all": (4, 6)}, step, subject.seed))["all"]
            wanted = own.step(layout(source)).left
            mine = sharing.step(layout(source.clone())).left
            yield from (f"gradients {how}: {said}" for said in _apart(step, mine, wanted, own))


def _of_examples(subject: Subject) -> Iterator[str]:
    sharing, own = subject.rig(shapes=SAMPLE, copies=False), subject.rig(shapes=SAMPLE)
    for step in range(STEPS):
        one = present(gradients(SAMPLE, step, subject.seed))["a.bias"]
        given: Gradients = {"a.bias": one, "b.bias": one.clone(), "c.bias": torch.ones(4)}
        wanted, mine = own.step(given).left, sharing.step(given).left
        yield from _apart(step, mine, wanted, own)


def _apart(step: int, mine: Gradients, wanted: Gradients, rig: Rig) -> Iterator[str]:
    return differ(step, mine, wanted, rig, "where each has memory of its own")


@promise("float64 gradients are measured in float64: 1e100 is finite, and 1e-60 is not zero")
def float64(subject: Subject) -> Iterator[str]:
    for size in SIZES:
        rig, usual = (subject.rig(dtype=torch.float64) for _ in range(2))
        if rig.noise > size:  # an update that a weight of 0.5 would not feel
            for param in (*rig.params.values(), *usual.params.values()):
                param.data.zero_()
        for step in range(STEPS):
            calm = _calm(rig, step)
            given: Gradients = {name: grad.double() * size for name, grad in calm.items()}
            made, other = rig.step(given), usual.step({n: g.double() for n, g in calm.items()})
            yield from (f"step {step}: {said}" for said in _measured(rig, given, made))
            if bool(made.skipped):
                continue
            for name, left in present(made.left).items():
                was = f"{name} of norm {size_of(given[name]):g}"
                if not bool(torch.isfinite(left).all()):
                    yield f"step {step}: {was} is not finite any more"
                elif not bool(left.any()) and size_of(other.left[name]):
                    yield f"step {step}: {was} becomes zero"


def _measured(rig: Rig, given: Gradients, made: Step) -> Iterator[str]:
    wanted = rig.measured(rig.unclipped(given))
    norm = f"a norm of {float(wanted[0]):g}"
    if not bool(made.finite):
        yield f"{norm} is not taken for a finite one"
    if made.norm.dtype != torch.float64 or apart(made.norm, wanted, 1e-9, 0.0):
        kind = str(made.norm.dtype).removeprefix("torch.")
        yield f"{norm} is measured as {float(made.norm.flatten()[0]):g} in {kind}"
    if not isinstance(rig.strategy, Transform) and bool(torch.isnan(made.limit).any()):
        yield f"for {norm} the limit is NaN"


def _calm(rig: Rig, step: int) -> Tensors:
    return present(gradients(rig.shapes, step, rig.seed, 1.0))
