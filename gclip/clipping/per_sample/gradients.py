"""Each training example's own gradient.

All at once by ``torch.func`` (``vmap`` over ``grad``); where a module does not allow that, one
example after another by ``torch.autograd``, which takes any module and is slower. Modules whose
answer to one example depends on the others of the batch are refused.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from gclip.clipping.per_sample import buffers
from gclip.clipping.per_sample.checks import (
    Loss,
    check_loss,
    check_model,
    chunks,
    first_line,
    one_number,
    where,
)
from gclip.errors import UsageError


class ExampleGradients(NamedTuple):
    """The gradients of some examples.

    Attributes:
        grads: ``{parameter: (examples, *shape)}`` for those that require a gradient and that the
            loss depends on. Some may share memory, with one another or between examples: they are
            only to be read.
        unused: the names of those that require a gradient and that the loss does not depend on.
        losses: ``(examples,)``.
    """

    grads: dict[str, Tensor]
    unused: tuple[str, ...]
    losses: Tensor


def per_sample_gradients(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Loss = F.cross_entropy,
    *,
    chunk: int | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Each example's own gradient, and each example's loss.

    Modules that ``torch.func`` cannot take (``nn.RNN``, ``nn.GRU``, control flow that depends on
    the data) are computed one example after another, with a warning that says so: the same
    numbers, more slowly. Buffers that the forward pass changes (counters, an instance norm's
    running statistics) become what a pass over the batch makes of them.

    >>> import torch, gclip
    >>> model = torch.nn.Linear(2, 3)
    >>> inputs, targets = torch.ones(4, 2), torch.tensor([0, 1, 2, 0])
    >>> grads, losses = gclip.per_sample_gradients(model, inputs, targets)
    >>> tuple(grads["weight"].shape), tuple(losses.shape)
    ((4, 3, 2), (4,))

    Args:
        model: that the examples go through.
        inputs: ``(examples, …)``; ``model(inputs)`` must answer ``(examples, …)``.
        targets: ``(examples, …)``.
        loss: of a batch of one, one number; a ``reduction`` of mean, sum or none is the same.
        chunk: how many examples are computed at once, each chunk a forward pass of its own; all
            by default. Memory for the gradients is ``examples × parameters`` whatever the chunk.

    Returns:
        ``{parameter: (examples, *shape)}`` for parameters that require a gradient, dense, zero
        where the loss does not depend on them; and the losses ``(examples,)``. Only to be read:
        gradients that are the same may share memory.

    Raises:
        UsageError: batch norm in training mode, with which examples have no gradients of their
            own; lazy modules before their first batch; a model or loss that fails on one example.
    """
    compute = PerSampleGradients(model, stacklevel=3)
    computed: list[ExampleGradients] = []
    for examples in chunks(inputs, targets, chunk):
        computed.append(compute(inputs[examples], targets[examples], loss))
    grads: dict[str, Tensor] = {}
    for name, param in model.named_parameters():
        if param.requires_grad:
            parts = [
                each.grads[name] if name in each.grads else _zeros(param, len(each.losses))
                for each in computed
            ]
            grads[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return grads, torch.cat([each.losses for each in computed])


class PerSampleGradients:
    """Computes the gradients of single examples of a model, and remembers in which way it can.

    Args:
        stacklevel: how many calls away the user's line is that warnings are to name.
    """

    def __init__(self, model: nn.Module, *, stacklevel: int) -> None:
        self._model, self._stacklevel = model, stacklevel
        self._vmap_works: bool | None = None

    def __call__(self, inputs: Tensor, targets: Tensor, loss: Loss) -> ExampleGradients:
        """As `per_sample_gradients`; only the examples given, at once.

        Raises:
            UsageError: as there, or no parameter that requires a gradient.
        """
        model = self._model
        check_model(model)
        check_loss(loss, targets)
        if not any(p.requires_grad for p in model.parameters()):
            raise UsageError("no parameter of the model requires a gradient: all are frozen")
        if self._vmap_works is False or len(inputs) == 1:  # of one, nothing is gained
            return self._one_by_one(inputs, targets, loss)
        snapshot = buffers.BufferSnapshot(model) if self._vmap_works is None else None
        random_state = _random_state(inputs.device)
        try:
            computed = self._by_vmap(inputs, targets, loss)
        except (UsageError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a module or loss raises under vmap
            if snapshot is not None:
                snapshot.take()
            _set_random_state(random_state, inputs.device)
            computed = self._one_by_one(inputs, targets, loss)
            self._vmap_works = False
            warnings.warn(
                f"torch.func cannot take {where(model, error)} ({first_line(error)}), so the "
                "gradients of single examples are computed one after another: the same numbers, "
                "but slower",
                stacklevel=self._stacklevel,
            )
            return computed
        self._vmap_works = True
        return computed

    def _by_vmap(self, inputs: Tensor, targets: Tensor, loss: Loss) -> ExampleGradients:
        model = self._model
        named = dict(model.named_parameters())
        params = {n: p.detach() for n, p in named.items() if p.requires_grad}
        fixed = {n: p.detach() for n, p in named.items() if not p.requires_grad}
        own_buffers = dict(model.named_buffers())

        def loss_of_one(
            own: dict[str, Tensor], x: Tensor, y: Tensor
        ) -> tuple[Tensor, dict[str, Tensor]]:
            state = {**own, **fixed, **own_buffers}
            answer = functional_call(model, state, (x.unsqueeze(0),))
            # functional_call puts there what forward assigned to buffers.
            new = {n: state[n] for n, old in own_buffers.items() if state[n] is not old}
            return one_number(loss(answer, y.unsqueeze(0))), new

        each = vmap(
            grad_and_value(loss_of_one, has_aux=True), in_dims=(None, 0, 0), randomness="different"
        )
        grads, (losses, changed) = each(params, inputs, targets)
        unused = self._unused(grads, inputs, targets, loss)
        buffers.settle(model, changed)
        return ExampleGradients(
            {n: g for n, g in grads.items() if n not in unused}, tuple(unused), losses
        )

    def _unused(
        self, grads: dict[str, Tensor], inputs: Tensor, targets: Tensor, loss: Loss
    ) -> list[str]:
        """Which parameters the loss does not depend on.

        ``torch.func`` gives these zeros, the same for all examples. So does it for a term of the
        loss that knows no examples; autograd tells the two apart.
        """
        same = [n for n, g in grads.items() if g.numel() and not g.stride(0)]
        if not same:
            return []
        device = inputs.device
        random_state = _random_state(device)
        snapshot = buffers.BufferSnapshot(self._model)
        _, grads_of_one = _grads_of_one(self._model, inputs[:1], targets[:1], loss)
        snapshot.take()
        _set_random_state(random_state, device)
        return [n for n in same if grads_of_one[n] is None]

    def _one_by_one(self, inputs: Tensor, targets: Tensor, loss: Loss) -> ExampleGradients:
        model = self._model
        snapshot, changed = buffers.BufferSnapshot(model), []
        losses: list[Tensor] = []
        rows: dict[str, list[Tensor | None]] = {}
        params = dict(model.named_parameters())
        for index in range(len(inputs)):
            one = slice(index, index + 1)
            try:
                value, grads = _grads_of_one(model, inputs[one], targets[one], loss)
            finally:
                changed.append(snapshot.take())
            losses.append(value)
            for name, grad in grads.items():
                rows.setdefault(name, []).append(grad)
        each: dict[str, Tensor] = {}
        for name, own in rows.items():
            if any(g is not None for g in own):
                blank = torch.zeros_like(params[name])
                each[name] = torch.stack([blank if g is None else g for g in own])
        buffers.settle(model, snapshot.stacked(changed))
        return ExampleGradients(each, tuple(n for n in rows if n not in each), torch.stack(losses))


def _grads_of_one(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The loss of one example, and its gradients, dense; None where it does not depend on one."""
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    try:
        with torch.enable_grad():
            value = one_number(loss(model(x), y))
        grads: tuple[Tensor | None, ...] = (None,) * len(params)
        if value.requires_grad:
            grads = torch.autograd.grad(value, list(params.values()), allow_unused=True)
    except (UsageError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise UsageError(
            f"{where(model, error)} fails on a single example, a batch of one of the shape "
            f"{tuple(x.shape)}: {first_line(error)}"
        ) from error
    dense = [None if grad is None else grad.to_dense() for grad in grads]
    return value.detach(), dict(zip(params, dense, strict=True))


def _zeros(param: Tensor, count: int) -> Tensor:
    return torch.zeros_like(param).expand(count, *param.shape)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    on_gpu = device.type == "cuda"
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
