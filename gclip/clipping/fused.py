"""Clipping inside a fused optimizer: its kernel multiplies the gradients by the factor.

torch's fused optimizers divide the gradients by ``grad_scale`` as they read them (it is there for
mixed precision) and leave a step out where ``found_inf`` is 1. A limit that is one for all
gradients can go the same way: then clipping reads the gradients once, for their norm, and makes no
pass of its own to change them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gclip.clipping.clipper import Clipper
from gclip.clipping.step_skipping import set_found_inf
from gclip.core.strategy import Transform
from gclip.errors import UsageError


class FusedClipping:
    """A clipper that leaves the multiplication to an optimizer.

    Raises:
        UsageError: the optimizer is not fused; the clipper has more than one limit for all of the
            optimizer's gradients, or one that is not a factor.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, clipper: Clipper) -> None:
        self._optimizer: Any = optimizer
        self._clipper = clipper
        _check(optimizer, clipper)
        clipper.fold()

    @contextmanager
    def folding(self, skipped: Tensor) -> Iterator[None]:
        """Around the optimizer's own step, after the clipper's."""
        optimizer = self._optimizer
        _check_fused(optimizer)  # groups may have been added
        skipped = skipped.reshape(())
        factor = self._clipper.parts[0].decision.factor.reshape(()).float()
        # Where the step is left out, its factor may be anything; 1 harms nobody.
        scale = torch.where(skipped, 1.0, factor).reciprocal()
        with set_found_inf(optimizer, skipped, grad_scale=scale):
            yield


def _check_fused(optimizer: torch.optim.Optimizer) -> None:
    if not all(group.get("fused") for group in optimizer.param_groups):
        raise UsageError(
            f"fold=True needs a fused optimizer: {type(optimizer).__name__}(…, fused=True)"
        )


def _check(optimizer: torch.optim.Optimizer, clipper: Clipper) -> None:
    _check_fused(optimizer)
    parts = clipper.parts
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    strategy = parts[0].strategy
    whole = len(parts) == 1 and strategy.side == "gradient" and len(parts[0].indices) == count
    if not whole or strategy.scope != "global" or strategy.rule in ("clamp", "skip"):
        raise UsageError(
            "fold=True needs one limit for all of the optimizer's gradients, such as 'norm' or "
            f"'percentile' with scope=global, and no exclude, but got {strategy}"
        )
    if isinstance(strategy, Transform):
        raise UsageError(f"fold=True needs a factor, but {strategy} changes single elements")
    if clipper.nonfinite == "keep":
        raise UsageError('fold=True leaves steps out that are not finite: nonfinite="keep" cannot')
