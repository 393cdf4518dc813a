"""By which rules is a step made?

The learning rate of a step is set before its gradients are clipped. A skipped step is left out:
weights, momentum and step counts stay as they are, bit for bit; schedules go on.

The rules are part of a run's identity: `RunConfig.stepping` holds their version wherever they
matter, so that runs made under other rules are never taken for these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from gclip.clipping.step_skipping import fused_on_gpu, set_found_inf
from gclip.clipping.step_snapshot import StepSnapshot, lives_on
from gclip.core.digest import code_of
from gclip.core.host import on_host
from gclip.core.players import Players, parts_of
from gclip.core.strategy import Chain, Strategy

if TYPE_CHECKING:
    from gclip.clipping.clipper import Clipper
    from gclip.clipping.layer_norms import LayerNorms
    from gclip.clipping.report import ClipReport
    from gclip.training.random_streams import RandomStream

VERSION = 2
"""Of the rules. Under version 1 the optimizer made a step of zero gradients where one was skipped,
and the rate was set after clipping, so that strategies saw that of the step before."""


def matters(strategy: Strategy | Chain | Players, schedule: str) -> bool:
    """Whether a run with these settings comes to other values under other versions of the rules.

    So it is where a rule skips steps, and where the learning rate changes and a strategy reads it
    before the optimizer's step. Steps that are skipped because they are not finite are known only
    afterwards: see `gclip.results.Store.has`.
    """
    parts = parts_of(strategy)
    if any(part.rule == "skip" for part in parts):
        return True
    return schedule != "constant" and any(
        part.side != "update" and ".lr" in code_of(part) for part in parts
    )


class Stepper:
    """Calls ``optimizer.step()`` for the steps that the clipper did not skip.

    On a CPU the step is not called. A GPU is not waited for: its fused optimizers leave a step out
    by themselves, where ``found_inf`` is 1; after others what they changed is put back, which
    takes a copy of the weights and the state. Two kinds of steps wait for one look at the device:
    all until the first that is taken, as there is no state yet to go back to (torch's fused SGD,
    told to leave out its first step, would go on with momentum that was never written), and those
    of optimizers that keep a part of their state elsewhere (Adagrad counts steps on the host).
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._weights = [p for group in optimizer.param_groups for p in group["params"]]
        self._fused = fused_on_gpu(optimizer)
        self._begun = False

    def step(self, skipped: Tensor) -> None:
        """The optimizer's step, or none where `skipped`, bool ``(1,)``, is true."""
        optimizer = self._optimizer
        if on_host(skipped) or not (self._begun and (self._fused or self._masks(skipped))):
            if not bool(skipped):
                optimizer.step()
                self._begun = True
        elif self._fused:
            with set_found_inf(optimizer, skipped):
                optimizer.step()
        else:
            before = StepSnapshot(optimizer, self._weights)
            optimizer.step()
            before.restore_if(skipped)

    def _masks(self, skipped: Tensor) -> bool:
        """Whether what a step changed can be put back without a look at the device."""
        return lives_on(self._optimizer.state, skipped.device)


def clip_and_step(
    clipper: Clipper,
    stepper: Stepper,
    *,
    stream: RandomStream | None,
    layers: LayerNorms | None,
    name: str | None = None,
    clipped: Callable[[], None] | None = None,
) -> ClipReport:
    """Clip the gradients that there are, and let the optimizer make its step or leave it out.

    Args:
        clipper: of the network.
        stepper: of its optimizer.
        stream: that strategies draw from; None for torch's own.
        layers: records the norms of layers, where the run is watched.
        name: of the network there, where there are several.
        clipped: called when the gradients have been clipped, also at a step that is skipped.
    """
    if layers is not None:
        layers.before(name)
    with stream or contextlib.nullcontext():
        report = clipper.step()
    if layers is not None:
        layers.after(report.skipped)
    if clipped is not None:
        clipped()
    with clipper.updating() if clipper.on_updates else contextlib.nullcontext():
        stepper.step(report.skipped)
    if layers is not None and clipper.on_updates:  # which may have skipped the update
        layers.skip(cast("ClipReport", clipper.report).skipped)
    return report
