"""A strategy at work on single examples: what it decides of them and learns of a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gclip.clipping.answers import remembered
from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.rules import Decision, decide, remember_step
from gclip.clipping.state import copied, retyped
from gclip.core.seen import Seen
from gclip.errors import UsageError


class BoundSampleStrategy(BoundStrategy):
    """As `BoundStrategy`, for examples: norms are ``(examples, groups)``, memory ``(groups,)``.

    A batch may come in several chunks and a step of several batches: each is decided on with the
    memory from before the step, and at the step's end `learn_examples` sees all of them at once.
    """

    def measure_examples(self, each: Sequence[Tensor | None], like: Tensor) -> Tensor:
        """The norms of gradients ``(examples, *shape)``, None where there is none."""
        return self.groups.batched_norms(each, self._order, like)

    def ask_examples(self, norm: Tensor, step: int) -> Decision:
        """What the strategy makes of examples, whichever come beside them in a chunk."""
        self._follow(norm)
        seen = self._seen_examples(norm, step, None)
        return decide(self.now(step), seen, self.memory or {})

    def learn_examples(self, step: int, there: Sequence[bool], finite: Tensor) -> None:
        """Let the strategy learn what `made` says of all examples of a finite step.

        Args:
            there: which parameters any of the examples has a gradient for.

        Raises:
            UsageError: the strategy's entries for memory are not ``(groups,)``.
        """
        strategy, norm, old = self.now(step), self.made.norm, self.memory or {}
        if not old:
            return
        # Norms that were measured in float64 enter memory in the precision that it has.
        norm, after = norm.to(self._norm), self.made.clipped_norm.to(self._norm)
        valid = torch.isfinite(norm)
        if not all(there):
            marks = [torch.zeros((), dtype=torch.float32) if each else None for each in there]
            valid = valid & self.groups.present(marks, norm.device)
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

    # -- inside ------------------------------------------------------------------------------

    def _follow(self, norm: Tensor) -> None:
        """Begin the memory, or let it follow the gradients to their device."""
        self._norm = norm.new_zeros(self.groups.count, dtype=_kind(self.params))
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
        pairs = zip(self.weights, trained, strict=True)
        weights = [weight if each else None for weight, each in pairs]
        return Seen(
            norm,
            step=step,
            weight_norm=lambda: groups.norms(weights, self._order, device),
            size=lambda: groups.sizes(device, trained, dtype=norm.dtype),
            lr=self._rate("lr", norm.dtype),
            weight_decay=self._rate("weight_decay", norm.dtype),
            valid=valid,
            total_steps=self._total_steps,
            per_example=True,
        )


def _kind(params: Sequence[Tensor]) -> torch.dtype:
    """float64 where any parameter that is trained is, else float32."""
    double = (torch.float64, torch.complex128)
    wide = any(p.dtype in double and p.requires_grad for p in params)
    return torch.float64 if wide else torch.float32
