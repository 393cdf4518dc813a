"""A strategy at work on single examples: what it decides of them and learns of a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gclip.clipping.answers import remembered
from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.norms import norm_type
from gclip.clipping.per_sample.group_sums import example_norms
from gclip.clipping.rules import Decision, decide, remember_step
from gclip.clipping.state import copied, retyped
from gclip.core.seen import Seen
from gclip.errors import UsageError


class BoundSampleStrategy(BoundStrategy):
    """As `BoundStrategy`, for examples: norms are ``(examples, groups)``, memory ``(groups,)``.

    A batch may come in several chunks and a step of several batches: each is decided on with the
    memory from before the step, and at the step's end `learn_examples` sees all of them at once.
    """

    def measure_examples(self, grads: Sequence[Tensor | None], like: Tensor) -> Tensor:
        """The norms of gradients ``(examples, *shape)``, None where there is none."""
        return example_norms(self.groups, grads, self._order, like)

    def ask_examples(self, norm: Tensor, step: int) -> Decision:
        """What the strategy makes of examples, whichever come beside them in a chunk."""
        self._follow_norms(norm)
        seen = self._seen_examples(norm, step, None)
        return decide(self.at_step(step), seen, self.memory or {})

    def learn_examples(
        self, step: int, decision: Decision, present: Sequence[bool], finite: Tensor
    ) -> None:
        """Let the strategy learn from all examples of a step.

        Args:
            step: how many steps came before this one.
            decision: what was decided of the examples, in the order in which they came.
            present: which parameters any of the examples has a gradient for.
            finite: whether the step's gradients are, bool ``(1,)``.

        Raises:
            UsageError: the strategy's entries for memory are not ``(groups,)``.
        """
        self.decision = decision
        strategy, norm, old = self.at_step(step), decision.norm, self.memory or {}
        if not old:
            return
        # Norms that were measured in float64 enter memory in the precision that it has.
        norm, after = norm.to(self._norm), decision.clipped_norm.to(self._norm)
        valid = torch.isfinite(norm)
        if not all(present):
            placeholders = [
                torch.zeros((), dtype=torch.float32) if flag else None for flag in present
            ]
            valid = valid & self.groups.present(placeholders, norm.device)
        # A step whose gradients are all zero is none: optimizers are warmed up with such.
        valid = valid & finite.to(norm.device) & (norm > 0).any()
        seen = self._seen_examples(norm, step, valid)
        new = remember_step(strategy, seen, after, old, valid.any(dim=0))
        for key, value in new.items():
            before = old[key]
            if isinstance(value, Tensor) and value.shape != before.shape:
                raise UsageError(
                    f"{strategy} turns its memory {key!r} of the shape {tuple(before.shape)} into "
                    f"{tuple(value.shape)}: on the side 'sample' learn() sees (examples, groups) "
                    "and must reduce over the examples, by seen.example_mean"
                )
        self.memory = new

    def note_totals(self, before: Tensor, after: Tensor) -> None:
        """The norms that the record adds up: of the mean gradients, ``(parameters,)``."""
        self.total_before, self.total_after = before, after

    # -- inside ------------------------------------------------------------------------------

    def _follow_norms(self, norm: Tensor) -> None:
        """Begin the memory, or let it follow the gradients to their device."""
        self._norm = norm.new_zeros(self.groups.count, dtype=_norm_type(self.params))
        if self.memory is None:
            self.memory = remembered(self.strategy, self._norm)
        elif self._device != norm.device:
            self.memory = copied(self.memory, norm.device)
        if self._dtype != self._norm.dtype:
            self.memory = retyped(self.memory, self._norm.dtype)
        self._device, self._dtype = norm.device, self._norm.dtype

    def _seen_examples(self, norm: Tensor, step: int, valid: Tensor | None) -> Seen:
        device, groups = norm.device, self.groups
        trained = [param.requires_grad for param in self.params]
        return Seen(
            norm,
            step=step,
            weight_norm=lambda: groups.norms(self._trained(self.weights), self._order, device),
            size=lambda: groups.sizes(device, trained, dtype=norm.dtype),
            lr=self._hyperparameter("lr", norm.dtype),
            weight_decay=self._hyperparameter("weight_decay", norm.dtype),
            valid=valid,
            total_steps=self._total_steps,
            per_example=True,
        )


def _norm_type(params: Sequence[Tensor]) -> torch.dtype:
    """float64 where any parameter that is trained is, else float32."""
    return norm_type([param for param in params if param.requires_grad])
