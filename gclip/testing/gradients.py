"""Made-up weights and gradients: every shape a model has, calm steps, spikes, nothing but seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Tensors: TypeAlias = dict[str, Tensor]
Gradients: TypeAlias = dict[str, "Tensor | None"]

SHAPES: Shapes = {
    "stem.scale": (),
    "stem.bias": (3,),
    "conv.weight": (2, 3, 2, 2),
    "head.weight": (4, 5),
    "head.bias": (4,),
    "mix.weight": (3, 2, 2),
}

SPIKE = 7
"""Every so many steps the gradients are thirty times as large."""


def weights(shapes: Shapes, seed: int) -> Tensors:
    """Parameters, about 0.5 an element."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.5 * _normal(shape, generator) for name, shape in shapes.items()}


def gradients(shapes: Shapes, step: int, seed: int, size: float | None = None) -> Gradients:
    """One step's gradients, of elements about `size`; by default of a size that varies.

    Args:
        shapes: by name.
        step: from 0.
        seed: of the draw.
        size: of a usual element.
    """
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + step)
    grads: Gradients = {}
    if size is None:
        size = math.exp(0.8 * float(_normal((), generator)))
        size *= 30 if step % SPIKE == SPIKE - 1 else 1
    for name, shape in shapes.items():
        uneven = _normal((), generator).mul(0.5).exp()
        grads[name] = _normal(shape, generator) * uneven * size
    return grads


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def norms(step: int, shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    """One step's numbers of a shape: norms where positive ones are wanted, else elements.

    Args:
        step: from 0.
        shape: ``(…, groups)``.
        seed: of the draw.
        dtype: of the norms.
    """
    generator = torch.Generator().manual_seed(2_000_003 * (seed + 1) + step)
    spike = 30.0 if step % SPIKE == SPIKE - 1 else 1.0
    return (torch.randn(shape, generator=generator, dtype=torch.float64).exp() * spike).to(dtype)


def present(grads: Gradients) -> Tensors:
    """The gradients that there are."""
    return {name: grad for name, grad in grads.items() if grad is not None}
