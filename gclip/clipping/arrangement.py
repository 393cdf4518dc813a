"""The strategies of a clipper, bound to the parameters that there are now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gclip.clipping.assignment import StrategyState, bind_all
from gclip.clipping.base_clipper import Nonfinite
from gclip.clipping.bound_clamp import BoundClamp
from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.bound_transform import BoundTransform
from gclip.clipping.dtensor import is_sharded, refuse_flat
from gclip.clipping.group_layout import check_layers
from gclip.clipping.hyperparameters import OptimizerHyperparameters
from gclip.clipping.parameters import Assigned, Named, Spec, assign
from gclip.clipping.per_sample.bound_strategy import BoundSampleStrategy
from gclip.clipping.per_sample.clipper import PerSampleClipper
from gclip.clipping.units import UnitDims, axes
from gclip.clipping.update import UpdateClipper
from gclip.core.strategy import Strategy, Transform

Round: TypeAlias = tuple[list[BoundStrategy], list[BoundStrategy]]
"""Strategies to measure beforehand, and those to ask and apply then."""


@dataclass(frozen=True, kw_only=True)
class ClipperOptions:
    """What a clipper was made with, whichever parameters it works on; see `gclip.Clipper`."""

    strategy: Spec
    exclude: Sequence[str]
    unit_dims: UnitDims | None
    optimizer: torch.optim.Optimizer | None
    total_steps: int | None
    model: object
    nonfinite: Nonfinite
    recording: bool

    def assign(self, named: Named, *, grown: bool) -> Assigned:
        """Each pattern's strategies, with the indices of their parameters."""
        return assign(named.names, self.strategy, self.exclude, given=named.given, grown=grown)


class Arrangement:
    """The strategies at work on some parameters.

    Args:
        options: what the clipper was made with.
        named: the parameters.
        earlier: the strategies before, whose memory those on the same groups go on with.
        grown: whether the parameters are no longer those that the clipper was made with.
        fused: whether an optimizer multiplies by the factor.

    Attributes:
        on_gradients: those of the side ``gradient``, in the order in which they act.
        updates: what clips updates, or None.
        samples: what clips single examples, or None.
        all: every one.
        shown: those that reports and records are about: what acts last.
        rounds: those on gradients, cut where one works on what the one before it leaves.
        sharded: whether any parameter is spread over processes.
        remembers: whether any keeps something between steps.
    """

    def __init__(
        self,
        options: ClipperOptions,
        named: Named,
        earlier: Sequence[StrategyState] = (),
        *,
        grown: bool,
        fused: bool,
    ) -> None:
        refuse_flat(named.params)
        self.named = named
        assigned = options.assign(named, grown=grown)
        bound = bind_all(named, assigned, _binder(options, named, grown, fused), earlier)
        self._bound = bound
        on_updates, on_samples, self.on_gradients = (
            [part for position, parts in bound.items() if position[1] == side for part in parts]
            for side in ("update", "sample", "gradient")
        )
        keep = options.nonfinite == "keep"
        may_skip = not keep or any(
            part.strategy.rule == "skip" for part in [*self.on_gradients, *on_updates]
        )
        self.updates: UpdateClipper | None = None
        if on_updates:
            self.updates = UpdateClipper(on_updates, named.params, options.optimizer, may_skip)
        samples = [part for part in on_samples if isinstance(part, BoundSampleStrategy)]
        self.samples: PerSampleClipper | None = None
        if samples:
            self.samples = PerSampleClipper(samples, options.model, options.recording)
        self.all = [*self.on_gradients, *on_samples, *on_updates]
        # What only checks for finite gradients is not shown.
        self.shown = on_updates or on_samples or self.on_gradients
        self.rounds = _rounds(self.on_gradients)
        self.sharded = any(map(is_sharded, named.params))
        self.remembers = any(part.remembers for part in self.all)
        self._measures = not keep or options.recording
        self._raises = options.nonfinite == "raise"

    @property
    def unmeasured(self) -> list[BoundClamp]:
        """The strategies, where all clamp at what needs no norm and nobody wants to see one."""
        clamps = [p for p in self.all if isinstance(p, BoundClamp) and p.constant_clamp]
        every = len(clamps) == len(self.on_gradients) == len(self.all)
        return clamps if every and not self._measures and not self.sharded else []

    @property
    def alone(self) -> BoundClamp | None:
        """The one strategy, where it may clamp as it measures: see `BoundClamp.clamp_at_once`.

        Not where a step that is not finite must find its gradients as they were.
        """
        part = self.all[0]
        single = len(self.all) == 1 and len(part.indices) == len(self.named.params)
        if not isinstance(part, BoundClamp) or not single or self.sharded or self._raises:
            return None
        each = part.groups.scope in ("element", "tensor") and part.strategy.side == "gradient"
        return part if each and part.constant_clamp else None

    def states(self) -> list[StrategyState]:
        """What each strategy knows, as it is saved."""
        return [
            StrategyState.of(position, part.strategy, part.groups, part.memory)
            for position, parts in self._bound.items()
            for part in parts
        ]


def _binder(
    options: ClipperOptions, named: Named, grown: bool, fused: bool
) -> Callable[..., BoundStrategy]:
    """A function that binds one strategy to some of the parameters."""
    unit_axes = axes(
        named.names,
        named.params,
        options.model,
        options.unit_dims,
        given=named.given,
        grown=grown,
    )
    optimizer = options.optimizer

    def bound(
        strategy: Strategy, names: list[str], params: list[Tensor], indices: list[int], **ends: Any
    ) -> BoundStrategy:
        if strategy.scope == "layer":
            check_layers(names, named.have_names)
        known = None if optimizer is None else OptimizerHyperparameters(optimizer, params)
        return bind(
            strategy,
            names,
            params,
            indices,
            axes=[unit_axes[i] for i in indices],
            hyperparameters=known,
            total_steps=options.total_steps,
            keep_nonfinite=options.nonfinite == "keep",
            recording=options.recording,
            fused=fused,
            **ends,
        )

    return bound


def bind(strategy: Strategy, *args: Any, **settings: Any) -> BoundStrategy:
    """What puts `strategy` to work; arguments as `BoundStrategy`."""
    if isinstance(strategy, Transform):
        return BoundTransform(strategy, *args, **settings)
    if strategy.side == "sample":
        return BoundSampleStrategy(strategy, *args, **settings)
    kind = BoundClamp if strategy.clamps else BoundStrategy
    return kind(strategy, *args, **settings)


def _rounds(parts: list[BoundStrategy]) -> list[Round]:
    firsts = [part for part in parts if part.first]
    rounds: list[Round] = [(firsts, [])]
    for part in parts:
        if part.first:
            rounds[-1][1].append(part)
        else:
            rounds.append(([part], [part]))
    return rounds
