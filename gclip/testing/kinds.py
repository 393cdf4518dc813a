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
        strategy = subject.try_create(**settings)
        if strategy is None:
            continue
        plain, other = (subject.rig(strategy, shapes=shapes) for _ in range(2))
        for step in range(3):
            grads = gradients(shapes, step, subject.seed)
            conv, head, embed = present(grads).values()
            embed[[0, 2, 3, 5]] = 0.0
            stored: Gradients = {
                "conv.weight": conv.contiguous(memory_format=torch.channels_last),
                "head.weight": head.t().contiguous().t(),
                "embed.weight": embed if strategy.side == "sample" else _sparse(embed),
            }
            actual, expected = other.step(stored).grads, plain.step(grads).grads
            yield from differ(step, actual, expected, plain, "stored densely and in order")


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
        strategy = subject.try_create(scope=scope)
        if strategy is None:
            continue
        rig, label = subject.rig(strategy, shapes=shapes), shown(strategy)
        one_element = subject.rig(strategy, shapes={**shapes, "scale.weight": (1, 1)})
        one_element.copy_parameters(rig)
        for step in range(4):
            grads = gradients(shapes, step, subject.seed)
            scalar = present(grads)["scale.weight"].view(1, 1)
            result, reference = rig.step(grads), one_element.step({**grads, "scale.weight": scalar})
            for name, grad in result.grads.items():
                if grad is None or grad.shape != shapes[name]:
                    yield f"{label}: {name} of the shape {shapes[name]} does not keep it"
                elif not bool(torch.isfinite(grad).all()):
                    yield f"{label}: {name} of the shape {shapes[name]} becomes {grad.tolist()}"
            if not subject.is_transform and bool(torch.isnan(result.limit).any()):
                yield f"{label}: the limits are {result.limit.tolist()}"
            a, b = (present(each.grads)["scale.weight"] for each in (result, reference))
            matrices = getattr(subject.cls, "view", "flat") == "matrix"  # scalars are left alone
            if apart(a, b.view(()), 2e-6, rig.noise) and not matrices:
                yield (
                    f"{label}: a scalar becomes {float(a):g}, "
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
            grads: Gradients = {
                name: g.clamp(-60_000, 60_000).to(dtype)
                for name, g in present(gradients(shapes, step, subject.seed, size)).items()
            }
            expected, actual = wide.step(grads), narrow.step(grads)
            if not subject.is_transform and bool(torch.isnan(actual.limit).any()):
                yield f"{dtype}, step {step}: the limit is NaN for a norm of {actual.norm[0]:g}"
            most = torch.finfo(dtype).max
            for name, grad in present(actual.grads).items():
                reference = present(expected.grads)[name].clamp(-most, most)
                atol = max(narrow.noise, float(torch.finfo(dtype).tiny))
                if apart(grad, reference, rtol, atol):
                    yield (
                        f"{dtype}, step {step}: the norm of {name} is {size_of(grad):g}, but "
                        f"{size_of(reference):g} in float32"
                    )
