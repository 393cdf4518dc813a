"""Two tensors that should be the same: whether they are, and by which sentence they are not."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gclip.testing.gradients import Gradients
from gclip.testing.rigs import Rig


def size_of(tensor: Tensor | None) -> float:
    """The norm; 0 where there is no tensor."""
    return 0.0 if tensor is None else float(tensor.to_dense().double().norm())


def apart(a: Tensor, b: Tensor, rtol: float, atol: float) -> bool:
    """Whether two tensors differ by more than a share of the second's norm, and more than atol.

    Args:
        a: one tensor.
        b: the other.
        rtol: relative tolerance.
        atol: absolute tolerance.
    """
    actual, expected = a.to_dense().double(), b.to_dense().double()
    if not bool(torch.isfinite(actual).all()):
        return not torch.equal(actual, expected)
    return bool(
        (actual - expected).norm() > rtol * expected.norm() + atol * expected.numel() ** 0.5
    )


def differ(step: int, actual: Gradients, expected: Gradients, rig: Rig, than: str) -> Iterator[str]:
    """A sentence for every gradient of `actual` that is not the one of `expected`.

    Args:
        step: at which.
        actual: by name, what is left.
        expected: what should be.
        rig: that made it.
        than: what it is compared with, in words.
    """
    for name, b in expected.items():
        a = actual[name]
        if a is None or b is None:
            continue
        if apart(a, b, 1e-5, 1e-9 + rig.noise):
            norm_a, norm_b = size_of(a), size_of(b)
            yield f"step {step}: the norm of {name} is {norm_a:.7g}, but {norm_b:.7g} {than}"
