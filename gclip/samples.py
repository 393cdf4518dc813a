"""The per-example side: clip each training example's gradient, then take the mean.

Gradients of single examples come from ``torch.func`` (``vmap`` over ``grad``). A strategy sees
their norms as ``(examples, groups)``: each example is a row, as if it were a run of its own.

Abadi et al. (2016), Deep Learning with Differential Privacy, arXiv:1607.00133. No noise is added
here: per-example clipping alone is not private.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from gclip.decide import Decision, decide
from gclip.errors import UsageError
from gclip.part import Part

Loss = Callable[[Tensor, Tensor], Tensor]


def per_sample_gradients(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Loss = F.cross_entropy,
    *,
    chunk: int | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Each example's own gradient, and each example's loss.

    Args:
        inputs, targets: ``(examples, …)``; ``model(inputs)`` must answer ``(examples, …)``.
        loss: of a batch of one, a scalar.
        chunk: how many examples are computed at once; all by default. Memory for the gradients
            is ``examples × parameters`` whatever the chunk.

    Returns:
        ``{parameter: (examples, *shape)}`` for parameters that require a gradient, and the
        losses ``(examples,)``.

    Raises:
        UsageError: batch norm in training mode, with which examples have no gradients of their own.
    """
    _check(model)
    params = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    fixed = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
    fixed |= dict(model.named_buffers())

    def one(own: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        answer = functional_call(model, (own, fixed), (x.unsqueeze(0),))
        return loss(answer, y.unsqueeze(0))

    each = vmap(grad_and_value(one), in_dims=(None, 0, 0), randomness="different", chunk_size=chunk)
    grads, losses = each(params, inputs, targets)
    return grads, losses


class Samples:
    """The parts of a clipper that work on single examples, and the sums of a step so far."""

    def __init__(self, parts: list[Part], model: nn.Module) -> None:
        self.parts, self.model = parts, model
        self._named = dict(model.named_parameters())
        self._plain: dict[str, Tensor] = {}
        self._clipped: dict[str, Tensor] = {}
        self._made: list[list[Decision]] = []

    @property
    def waiting(self) -> bool:
        """Whether there are gradients that `settle` has not taken yet."""
        return bool(self._made)

    def add(
        self,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
        *,
        step: int,
        scale: float,
        chunk: int | None,
    ) -> Tensor:
        """Clip the examples of a batch; add their mean, times `scale`, to ``.grad``.

        Returns:
            The mean loss times `scale`.
        """
        count = len(inputs)
        if not count:
            raise UsageError("there are no examples in this batch")
        if chunk is not None and chunk < 1:
            raise UsageError(f"chunk must be a whole number ≥ 1, but got {chunk!r}")
        total = torch.zeros((), device=inputs.device)
        for start in range(0, count, chunk or count):
            few = slice(start, start + (chunk or count))
            grads, losses = per_sample_gradients(self.model, inputs[few], targets[few], loss)
            total += losses.detach().float().sum()
            with torch.no_grad():
                self._weigh(grads, step, scale / count)
        return total / count * scale

    def settle(self, recording: bool) -> None:
        """The step is complete: put into each part what was measured and done."""
        for place, part in enumerate(self.parts):
            made = [decisions[place] for decisions in self._made]
            part.made = made[0]._replace(
                norm=torch.cat([m.norm for m in made]),
                limit=torch.cat([m.limit for m in made]),
                clipped_norm=torch.cat([m.clipped_norm for m in made]),
                clipped=torch.cat([m.clipped for m in made]),
            )
            if recording:
                part.total_before = _norms([self._plain[n] for n in part.groups.names])
                part.total_after = _norms([self._clipped[n] for n in part.groups.names])
        self.drop()

    def drop(self) -> None:
        """Forget the step's sums."""
        self._plain, self._clipped, self._made = {}, {}, []

    def _weigh(self, grads: dict[str, Tensor], step: int, weight: float) -> None:
        self._made.append([self._clip(part, grads, step, weight) for part in self.parts])
        for name, each in grads.items():
            param, share = self._named[name], each.sum(dim=0) * weight
            param.grad = share if param.grad is None else param.grad + share
            self._clipped[name] = self._clipped.get(name, 0) + share

    def _clip(self, part: Part, grads: dict[str, Tensor], step: int, weight: float) -> Decision:
        """Scale the examples of one part, in place; what they summed up to is noted before."""
        strategy, names = part.now(step), part.groups.names
        each = [grads[name] for name in names]
        for name, tensor in zip(names, each, strict=True):
            self._plain[name] = self._plain.get(name, 0) + tensor.sum(dim=0) * weight
        norm = part.groups.batched_norms(each, strategy.order)
        made = decide(strategy, part.seen_of_examples(norm, step), {})
        for tensor, factor in zip(each, part.groups.batched_split(made.factor), strict=True):
            dims = tensor.ndim - 1 if factor.ndim == 1 else tensor.ndim - 2
            spread = (factor if dims >= 0 else factor[:, 0]).to(tensor)
            spread = spread.reshape(*spread.shape, *[1] * max(dims, 0))
            tensor.mul_(spread)
            if made.skip is not None:  # a factor of 0 would leave NaN behind
                tensor.masked_fill_(spread == 0, 0.0)
        return made


def _norms(tensors: list[Tensor]) -> Tensor:
    device = tensors[0].device
    return torch.stack([torch.linalg.vector_norm(t).float().to(device) for t in tensors])


def _check(model: nn.Module) -> None:
    from torch.nn.modules.batchnorm import _BatchNorm

    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            raise UsageError(
                f"{name or 'the model'} is a batch norm in training mode, so single examples have "
                "no gradients of their own; use group norm or layer norm, or a model without "
                "normalisation (lenet)"
            )
