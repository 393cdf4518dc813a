"""A clipper at work for as long as one likes: a small net, gradients of changing size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

import gclip

NAMES = tuple(name for name in gclip.names() if gclip.create(name).side != "sample")
"""Others clip within a backward pass of their own."""
_SHAPES = {"conv.weight": (2, 3), "conv.bias": (2,), "head.weight": (3, 2), "head.bias": (3,)}


def short(name: str) -> str:
    """The strategy with a window of few steps, so that it is soon full."""
    windows = [f.name for f in gclip.fields_of(gclip.get(name)) if f.name == "window"]
    return f"{name}(window=64)" if windows else name


def steps(spec: str, *, record: bool = False) -> Iterator[Any]:
    """The reports of step after step, for ever; some gradients are spikes, some not finite."""
    generator = torch.Generator().manual_seed(0)
    params = {n: torch.nn.Parameter(torch.ones(shape)) for n, shape in _SHAPES.items()}
    drawn = {
        n: torch.randn((50, *shape), generator=generator).mul(0.3) for n, shape in _SHAPES.items()
    }
    drawn["head.bias"][11] *= 1e4
    drawn["conv.bias"][29, 0] = float("nan")
    grads = {n: torch.zeros_like(param) for n, param in params.items()}
    for n, param in params.items():
        param.grad = grads[n]
    optimizer = torch.optim.SGD(params.values(), lr=1e-9)
    clipper = gclip.Clipper(params.items(), spec, optimizer=optimizer, record=record)
    count = 0
    while True:
        for n, grad in grads.items():
            grad.copy_(drawn[n][count % 50])
        report = clipper.step()
        if clipper.on_updates:
            with clipper.updating():
                optimizer.step()
        count += 1
        yield report
