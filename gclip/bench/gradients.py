"""Random gradients that come back as they were before every call that is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

SIZE = 0.01
"""Of the gradients' elements: their standard deviation."""


def give_gradients(parameters: Sequence[nn.Parameter]) -> Callable[..., None]:
    """Give every parameter a random gradient, always the same.

    Returns:
        A call that puts them back, times a scale, 1 by default.
    """
    generator = torch.Generator().manual_seed(0)
    saved: list[Tensor] = [torch.randn(p.shape, generator=generator) * SIZE for p in parameters]
    for p, grad in zip(parameters, saved, strict=True):
        p.grad = grad.clone()
    grads = [p.grad for p in parameters if p.grad is not None]

    def reset(scale: float = 1.0) -> None:
        torch._foreach_copy_(grads, saved)
        if scale != 1:
            torch._foreach_mul_(grads, scale)

    return reset
