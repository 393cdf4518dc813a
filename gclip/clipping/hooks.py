"""Clipping before every ``optimizer.step()``, without a line in the training loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from gclip.clipping.base_clipper import Nonfinite
from gclip.clipping.clip_handle import ClipHandle, attached
from gclip.clipping.clipper import Clipper
from gclip.clipping.parameter_sources import OptimizerSource
from gclip.clipping.parameters import Spec
from gclip.clipping.skip_monitor import MOST_SKIPS, OnSkips
from gclip.clipping.units import UnitDims
from gclip.errors import UsageError

Attached = ClipHandle
"""The name that `ClipHandle` had in version 0.1."""


def attach(
    optimizer: torch.optim.Optimizer,
    strategy: Spec,
    *,
    model: nn.Module | None = None,
    exclude: Sequence[str] = (),
    nonfinite: Nonfinite = "skip",
    record: bool = True,
    total_steps: int | None = None,
    fold: bool = False,
    max_consecutive_skips: int | None = MOST_SKIPS,
    on_max_skips: OnSkips = "warn",
    unit_dims: UnitDims | None = None,
) -> ClipHandle:
    """Clip by `strategy` before every ``optimizer.step()`` from now on.

    A step whose gradients are not finite (``nonfinite="skip"``), or that a strategy's rule
    ``skip`` refuses, is left out: parameters, momentum and step counts stay as they are, also
    where the optimizer is given a closure. With a closure that is evaluated several times (LBFGS),
    each evaluation is clipped.

    Parameters that the optimizer is given later (``add_param_group``) are clipped like the others.
    Where optimizers wrap one another (Accelerate's, Opacus'), the innermost is clipped, whose step
    is one real step. Copies and pickles of the optimizer are not clipped, and say so.

    Strategies of the side ``update`` (``"clippy"``, ``"norm(side=update)"``) clip the step that
    the optimizer makes: parameters after it less those before. For strategies of the side
    ``sample`` call ``handle.clipper.backward(inputs, targets, loss)`` instead of
    ``loss.backward()``.

    >>> import torch, gclip
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> handle = gclip.attach(optimizer, "norm(max_norm=1)", model=model)
    >>> model(torch.tensor([[3.0, 4.0]])).sum().backward()
    >>> optimizer.step()
    >>> handle.report.norm, handle.report.clipped
    (tensor([5.]), tensor([True]))

    Args:
        optimizer: any ``torch.optim.Optimizer``.
        strategy: as `Clipper`.
        model: gives the parameters their names, for patterns and the scope ``layer``; an
            optimizer made from ``named_parameters()`` has them itself. Its classes tell what a
            unit is (`gclip.clipping.units`). Needed to clip examples.
        exclude: as `Clipper`.
        nonfinite: as `Clipper`.
        record: as `Clipper`.
        total_steps: how many steps the run will have, for schedules that do not say it.
        fold: let a fused optimizer multiply by the factor as it reads the gradients, so that
            clipping costs one read of them. For one limit of all gradients
            (`gclip.clipping.fused`); ``.grad`` holds clipped values only after the step.
        max_consecutive_skips: how many steps in a row may be skipped before something is said;
            None for any number.
        on_max_skips: ``warn`` then, or ``raise`` a `FloatingPointError`.
        unit_dims: as `Clipper`.

    Returns:
        A handle with ``.remove()``, ``.report``, ``.record`` and ``.state_dict()``.

    Raises:
        UsageError: as `Clipper`; or the optimizer is already clipped by gclip.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"attach takes a torch optimizer, but got {type(optimizer).__name__}")
    optimizer = innermost(optimizer)
    if optimizer in attached:
        raise UsageError("this optimizer is clipped already: remove() the handle first")
    clipper = Clipper(
        OptimizerSource(optimizer, model), strategy, exclude=exclude, nonfinite=nonfinite,
        record=record, optimizer=optimizer, total_steps=total_steps, model=model,
        max_consecutive_skips=max_consecutive_skips, on_max_skips=on_max_skips,
        unit_dims=unit_dims,
    )  # fmt: skip
    return ClipHandle(optimizer, clipper, fold)


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that makes the step, where others wrap it.

    A wrapper's own step may be no step (one of several micro-batches), or change the gradients
    first (add noise to them).
    """
    while True:
        inner = [getattr(optimizer, name, None) for name in ("optimizer", "original_optimizer")]
        found = next((each for each in inner if isinstance(each, torch.optim.Optimizer)), optimizer)
        if found is optimizer:
            return optimizer
        optimizer = found
