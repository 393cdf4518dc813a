"""What is known of a step as a whole: is it finite, may strategies learn from it, is it skipped.

All are bool ``(1,)`` on the gradients' device. Where the host knows, they are the constant tensors
`ALL_FINITE` and `NOT_FINITE`, or None for a step that nobody wants to skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.gradients import nonfinite_names
from gclip.clipping.nonfinite import NonfiniteGradients
from gclip.clipping.norms import ALL_FINITE, any_positive
from gclip.core.host import on_host


class StepFlags(NamedTuple):
    """What strategies have said so far in a step. All are bool ``(1,)``.

    Attributes:
        finite: whether all gradients are.
        learnable: whether the step may enter memory.
        skip: whether any strategy wants the step skipped; None: no.
        zero: whether all gradients are to become zero now; None where the host knows: no.
    """

    finite: Tensor
    learnable: Tensor
    skip: Tensor | None
    zero: Tensor | None


def all_true(flags: list[Tensor]) -> Tensor:
    """Whether all are true, ``(1,)``; `ALL_FINITE` itself where all of them are."""
    if len(flags) == 1:
        return flags[0]
    if all(flag is ALL_FINITE for flag in flags):
        return ALL_FINITE
    return concatenated(flags).all().view(1)


def either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Where either is true; None is false."""
    if one is None or other is None:
        return other if one is None else one
    return one | other.to(one.device)


def learnable(finite: Tensor, parts: Sequence[BoundStrategy]) -> Tensor:
    """Whether the step may enter memory: it is finite, and not all of it is zero, ``(1,)``.

    A step of zeros says nothing about gradients. Checkpoint tools make one, to have an optimizer's
    state created.
    """
    flags = []
    for part in parts:
        if part.first:
            positive = any_positive(part.measured)
            if positive is ALL_FINITE:  # most steps: nothing else to look at
                return finite
            flags.append(positive)
    return finite & concatenated(flags).any().view(1).to(finite.device)


def nonfinite_gradients(
    names: Sequence[str],
    grads: Sequence[Tensor | None],
    finite: Tensor,
    parts: Sequence[BoundStrategy],
) -> NonfiniteGradients | None:
    """Whose gradients are not finite; None where the host knows that all are.

    Args:
        names: of the parameters.
        grads: one a parameter, not yet clipped.
        finite: whether all are, bool ``(1,)``.
        parts: that have measured them.
    """
    if finite is ALL_FINITE:
        return None
    if on_host(finite):
        return NonfiniteGradients(known=nonfinite_names(names, grads))
    return NonfiniteGradients([part.groups.finest(part.measured) for part in parts])


def zero_where(skip: Tensor, grads: list[Tensor]) -> None:
    """Set the gradients to zero where `skip` is true, without waiting for a GPU."""
    if on_host(skip):
        if bool(skip):
            torch._foreach_zero_(grads)
        return
    for grad in grads:  # a factor of 0 would leave NaN behind
        grad.masked_fill_(skip.view(()).to(grad.device), 0)


def concatenated(tensors: Sequence[Tensor]) -> Tensor:
    """One after another, on the first one's device; a single one as it is."""
    if len(tensors) == 1:
        return tensors[0]
    return torch.cat([tensor.to(tensors[0].device) for tensor in tensors])
