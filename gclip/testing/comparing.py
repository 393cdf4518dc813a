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
    ours, theirs = a.to_dense().double(), b.to_dense().double()
    if not bool(torch.isfinite(ours).all()):
        return not torch.equal(ours, theirs)
    return bool((ours - theirs).norm() > rtol * theirs.norm() + atol * theirs.numel() ** 0.5)


def differ(step: int, mine: Gradients, other: Gradients, rig: Rig, than: str) -> Iterator[str]:
    """A sentence for every gradient of `mine` that is not the one of `other`.

    Args:
        step: at which.
        mine: by name, what is left.
        other: what should be.
        rig: that made it.
        than: what it is compared with, in words.
    """
    for name, wanted in other.items():
        got = mine[name]
        if got is None or wanted is None:
            continue
        if apart(got, wanted, 1e-5, 1e-9 + rig.noise):
            a, b = size_of(got), size_of(wanted)
            yield f"step {step}: the norm of {name} is {a:.7g}, but {b:.7g} {than}"
