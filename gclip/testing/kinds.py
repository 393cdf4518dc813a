"""Promises about kinds of gradients: sparse, transposed, empty, scalar, of half precision."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gclip.testing.comparing import apart, differ, size_of
from gclip.testing.gradients import Gradients, gradients, present
from gclip.testing.promises import promise
from gclip.testing.subject import Subject, shown


@promise("how a gradient is stored does not matter: sparse, transposed, channels last")
def layout(subject: Subject) -> Iterator[str]:
    shapes = {"conv.weight": (4, 3, 2, 2), "head.weight": (4, 5), "embed.weight": (6, 3)}
    for settings in ({}, {"scope": "unit"}):
        strategy = subject.made(**settings)
        if strategy is None:
            continue
        plain, other = subject.rig(strategy, shapes=shapes), subject.rig(strategy, shapes=shapes)
        for step in range(3):
            given = gradients(shapes, step, subject.seed)
            conv, head, embed = present(given).values()
            embed[[0, 2, 3, 5]] = 0.0
            stored: Gradients = {
                "conv.weight": conv.contiguous(memory_format=torch.channels_last),
                "head.weight": head.t().contiguous().t(),
                "embed.weight": embed if strategy.side == "sample" else _sparse(embed),
            }
            mine, wanted = other.step(stored).left, plain.step(given).left
            yield from differ(step, mine, wanted, plain, "stored densely and in order")


def _sparse(rows: Tensor) -> Tensor:
    """The gradient that an embedding of rows 1, 4, 1 has: row 1 in two halves, out of order."""
    indices = torch.tensor([[1, 4, 1]])
    return torch.sparse_coo_tensor(
        indices, torch.stack([rows[1] / 2, rows[4], rows[1] / 2]), rows.shape, check_invariants=True
    )


@promise("empty tensors, scalars and tensors of one element work like any other")
def tiny(subject: Subject) -> Iterator[str]:
    shapes = {"empty.weight": (0, 3), "none.bias": (0,), "scale.weight": (), "line.bias": (4,)}
    for scope in subject.cls.scopes:
        strategy = subject.made(scope=scope)
        if strategy is None:
            continue
        rig, who = subject.rig(strategy, shapes=shapes), shown(strategy)
        one = subject.rig(strategy, shapes={**shapes, "scale.weight": (1, 1)})
        one.copy_parameters(rig)
        for step in range(4):
            given = gradients(shapes, step, subject.seed)
            scalar = present(given)["scale.weight"].view(1, 1)
            made, other = rig.step(given), one.step({**given, "scale.weight": scalar})
            for name, left in made.left.items():
                if left is None or left.shape != shapes[name]:
                    yield f"{who}: {name} of the shape {shapes[name]} does not keep it"
                elif not bool(torch.isfinite(left).all()):
                    yield f"{who}: {name} of the shape {shapes[name]} becomes {left.tolist()}"
            if not subject.is_transform and bool(torch.isnan(made.limit).any()):
                yield f"{who}: the limits are {made.limit.tolist()}"
            a, b = (present(each.left)["scale.weight"] for each in (made, other))
            matrices = getattr(subject.cls, "view", "flat") == "matrix"  # scalars are left alone
            if apart(a, b.view(()), 2e-6, rig.noise) and not matrices:
                yield (
                    f"{who}: a scalar becomes {float(a):g}, "
                    f"but {float(b):g} as a tensor of one element"
                )


@promise("half-precision gradients, of norms above 65,504 too, are clipped as in float32")
def half(subject: Subject) -> Iterator[str]:
    shapes = {"a.weight": (2, 4), "b.bias": (4,)}
    for dtype, rtol in ((torch.float16, 4e-3), (torch.bfloat16, 3e-2)):
        narrow = subject.rig(shapes=shapes, dtype=dtype)
        wide = subject.rig(shapes=shapes)
        wide.copy_parameters(narrow)
        for step, size in enumerate((20_000.0, 1.0, 20_000.0, 0.1)):
            given: Gradients = {
                name: g.clamp(-60_000, 60_000).to(dtype)
                for name, g in present(gradients(shapes, step, subject.seed, size)).items()
            }
            wanted, made = wide.step(given), narrow.step(given)
            if not subject.is_transform and bool(torch.isnan(made.limit).any()):
                yield f"{dtype}, step {step}: the limit is NaN for a norm of {made.norm[0]:g}"
            most = torch.finfo(dtype).max
            for name, left in present(made.left).items():
                other = present(wanted.left)[name].clamp(-most, most)
                least = max(narrow.noise, float(torch.finfo(dtype).tiny))
                if apart(left, other, rtol, least):
                    yield (
                        f"{dtype}, step {step}: the norm of {name} is {size_of(left):g}, but "
                        f"{size_of(other):g} in float32"
                    )
