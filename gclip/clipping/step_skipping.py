"""Leaving an optimizer's step out, also one that has begun: ways that torch's optimizers offer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class StepSkipped(Exception):
    """Ends an optimizer's step from within its closure; never leaves the handle that raises it."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss


def creates_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the step is no step of training, but made to have the optimizer's state created.

    Checkpoint tools do so (``torch.distributed.checkpoint.state_dict.get_state_dict``): all
    learning rates are 0, and all gradients.
    """
    if torch.compiler.is_compiling():
        return False
    for group in optimizer.param_groups:
        rate = group.get("lr", 1.0)
        if isinstance(rate, Tensor) and rate.device.type != "cpu":
            return False
        if float(rate):
            return False
    grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
    return not any(bool(grad.any()) for grad in grads if grad is not None)


@contextmanager
def set_found_inf(
    optimizer: Any, skipped: Tensor, *, grad_scale: Tensor | None = None
) -> Iterator[None]:
    """A fused optimizer leaves a step out by itself where ``found_inf`` is 1.

    Args:
        optimizer: a fused one.
        skipped: whether the step is to be left out, bool ``(1,)`` or ``()``.
        grad_scale: what the optimizer divides the gradients by; None for what it does anyway.
    """
    names = ("found_inf",) if grad_scale is None else ("found_inf", "grad_scale")
    before = {name: getattr(optimizer, name) for name in names if hasattr(optimizer, name)}
    found = before.get("found_inf")
    flag = skipped.view(()).float()  # a scalar, as the counts of steps are that it is taken from
    optimizer.found_inf = flag if found is None else found + flag
    if grad_scale is not None:
        optimizer.grad_scale = grad_scale
    try:
        yield
    finally:
        for name in names:
            delattr(optimizer, name)
        vars(optimizer).update(before)


def fused_on_gpu(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer is a fused one, and all that it steps is on a GPU."""
    groups = optimizer.param_groups
    return all(g.get("fused") for g in groups) and all(
        p.device.type == "cuda" for g in groups for p in g["params"]
    )
