"""What every integration passes on to the clipper, and how it says that a library is missing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, get_type_hints

import torch
from torch import nn

from gclip.clipping.base_clipper import Nonfinite
from gclip.clipping.clip_handle import ClipHandle
from gclip.clipping.hooks import attach
from gclip.clipping.parameters import Spec
from gclip.clipping.skip_monitor import OnSkips
from gclip.clipping.units import UnitDims
from gclip.core import registry
from gclip.core.strategy import Chain, Strategy
from gclip.errors import UsageError, choose


class ClippingOptions(TypedDict, total=False):
    """Options of `gclip.attach`, with its defaults."""

    exclude: Sequence[str]
    nonfinite: Nonfinite
    record: bool
    total_steps: int | None
    max_consecutive_skips: int | None
    on_max_skips: OnSkips
    unit_dims: UnitDims | None


def checked(strategy: Spec, options: Mapping[str, Any]) -> None:
    """Say at once what is wrong, not only when training begins.

    Raises:
        UsageError: an unknown strategy, or an unknown option.
    """
    for name in options:
        choose(name, get_type_hints(ClippingOptions), "option")
    for each in strategy.values() if isinstance(strategy, Mapping) else [strategy]:
        if isinstance(each, str):
            registry.parse(each)
        elif not isinstance(each, Strategy | Chain):
            raise UsageError(
                "a strategy is a spelling such as 'norm(max_norm=1)', a Strategy, a chain or a "
                f"mapping from name patterns to these, but got {type(each).__name__}"
            )


def attached_to(
    optimizer: torch.optim.Optimizer,
    strategy: Spec,
    model: nn.Module,
    options: ClippingOptions,
    *,
    total_steps: int | None,
) -> ClipHandle:
    """`gclip.attach` for a loop that calls ``loss.backward()`` itself.

    Args:
        total_steps: as far as the framework knows, where `options` do not say it.

    Raises:
        UsageError: as `gclip.attach`; or the strategy clips single examples.
    """
    known: ClippingOptions = {"total_steps": total_steps, **options}
    handle = attach(optimizer, strategy, model=model, **known)
    if handle.clipper.per_sample:
        handle.remove()
        raise UsageError(
            f"{strategy} clips single examples, whose gradients this loop does not give: it calls "
            "loss.backward() itself; take a strategy of the side gradient or update"
        )
    return handle


def missing(library: str, error: ImportError) -> UsageError:
    """What to say where a library is not installed (or what it needs)."""
    absent = (error.name or library).partition(".")[0]
    return UsageError(
        f"gclip.integrations.{library} needs {absent}, which is not installed: "
        f'pip install "gclip[{library}]", or pip install {absent}'
    )


def warn_twice_clipped(what: str, remedy: str) -> None:
    """Two clippings, one after the other, are seldom meant."""
    warnings.warn(f"{what} clips the gradients before gclip does: {remedy}", stacklevel=3)
