"""A few rows are tried before a run begins: does a split batch give what the whole one gives?

Losses that are no means over examples, layers that mix the examples of a batch, and random numbers
that a model draws by itself would make a run over several processes another run. No list of such
things is complete, so the first rows are computed both ways and compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gclip.errors import UsageError

ROWS = 8  # of each process, at most
LOSS, GRADIENTS = 1e-3, 3e-2
"""How far the loss (and the buffers), and the norm of all gradients may be off, relatively. In a
net with batch norm torch's own gradients of a few rows are up to 1e-2 from float64's (ResNet-9);
another dropout mask, or means over other rows, change them by far more."""


def rehearse(
    model: nn.Module, whole: Callable[[], Tensor], split: Callable[[], Tensor], size: int
) -> None:
    """Compare what some rows give in one process and in all of them, and leave no trace.

    Args:
        model: whose gradients `whole` and `split` compute.
        whole: computes all rows here; returns their loss.
        split: computes this process's rows and adds all up; returns the loss.
        size: how many processes there are.

    Raises:
        UsageError: loss, gradients, buffers or random numbers differ.
    """
    with torch.random.fork_rng(devices=_gpus(model)), _restored(model):
        chance = _chance(model)
        one = _outcome(model, whole)
        _set_chance(model, chance)
        for buffer, value in zip(model.buffers(), one.before, strict=True):
            buffer.copy_(value)
        other = _outcome(model, split)
    what = one.difference(other)
    if what:
        raise UsageError(
            f"a batch that {size} processes share comes to {what} than in one process: the model "
            "or the loss mixes the examples of a batch, or draws random numbers by itself (dropout "
            "layers and batch norm are taken care of); train this in one process"
        )


class _Outcome:
    """What a pass gave, and how the buffers were before it."""

    def __init__(self, model: nn.Module, before: list[Tensor], loss: Tensor) -> None:
        self.before, self.loss = before, loss.detach().double().cpu()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        self.grads = torch.cat([g.detach().double().flatten() for g in grads] or [torch.zeros(1)])
        floats = [b for b in model.buffers() if b.is_floating_point()]
        self.buffers = torch.cat([b.double().flatten() for b in floats] or [torch.zeros(1)])
        self.chance = _chance(model)

    def difference(self, other: _Outcome) -> str:
        """What differs, in words; empty where nothing does."""
        if not bool(self.loss.isfinite()) or not bool(self.grads.isfinite().all()):
            return ""  # nothing to compare, as at the start of a net that explodes
        if not _close(self.loss, other.loss, LOSS):
            return "another loss"
        if not _close(self.grads, other.grads, GRADIENTS):
            return "other gradients"
        if not _close(self.buffers, other.buffers, LOSS):
            return "other buffers of the model"
        same = zip(self.chance, other.chance, strict=True)
        return "" if all(torch.equal(a, b) for a, b in same) else "other random numbers"


def _outcome(model: nn.Module, compute: Callable[[], Tensor]) -> _Outcome:
    before = [buffer.clone() for buffer in model.buffers()]
    for parameter in model.parameters():
        parameter.grad = None
    return _Outcome(model, before, compute())


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one - other).norm() <= tolerance * one.norm() + 1e-12)


@contextlib.contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Buffers as they were afterwards, and no gradients."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)
        for parameter in model.parameters():
            parameter.grad = None


def _gpus(model: nn.Module) -> list[torch.device]:
    return list({p.device for p in model.parameters() if p.device.type == "cuda"})


def _chance(model: nn.Module) -> list[Tensor]:
    """Where torch's random numbers are, on the CPU and on the model's GPU."""
    return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, _gpus(model))]


def _set_chance(model: nn.Module, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for device, state in zip(_gpus(model), states[1:], strict=True):
        torch.cuda.set_rng_state(state, device)
