"""What tests of integrations share: the frameworks, a small model and the loop written by hand."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import gclip

STEPS, BATCH = 50, 8
STRATEGIES = {
    "mean": "adagc(warmup=3)",
    "ema": "zclip(warmup=2)",
    "window": "median_window(window=8, scale=1)",
    "quantile": "quantile_tracking",
    "random": "random(max_norm=0.4)",
    "elements": "spam(threshold=10, warmup=3, decay=0.9)",
    "skip": "norm(max_norm=0.9, rule=skip)",
    "update": "clippy",
    "patterns": {"0.*": "percentile(p=20)", "*": "norm(max_norm=0.3, scope=tensor)"},
}
"""Memories of every kind, steps that are left out, and strategies that clip the update."""


def module(name: str) -> Any:
    """A framework; where ``GCLIP_FRAMEWORKS`` is set it must be there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if os.environ.get("GCLIP_FRAMEWORKS"):
            return importlib.import_module(name)
        return pytest.importorskip(name)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def dataset(batches: int = STEPS) -> TensorDataset:
    """Batches of very different sizes, so that gradients are, too."""
    source = torch.Generator().manual_seed(1)
    size = torch.randn(batches, generator=source).exp().repeat_interleave(BATCH)
    inputs = torch.randn(batches * BATCH, 6, generator=source) * size[:, None]
    return TensorDataset(inputs, torch.randint(3, (batches * BATCH,), generator=source))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1)


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets)


def by_hand(
    strategy: Any,
    *,
    accumulate: int = 1,
    steps: int = STEPS,
) -> tuple[nn.Sequential, gclip.Clipper]:
    """The loop that the frameworks are held to: the net after it, and its clipper."""
    model, data = network(), dataset()
    optimizer = adam(model.parameters())
    clipper = gclip.Clipper(model, strategy, optimizer=optimizer, total_steps=steps)
    inputs, targets = data.tensors
    batches = list(zip(inputs.view(-1, BATCH, 6), targets.view(-1, BATCH), strict=True))
    for start in range(0, steps * accumulate, accumulate):
        optimizer.zero_grad()
        for x, y in batches[start : start + accumulate]:
            torch.autograd.backward(loss_of(model(x), y) / accumulate)
        if not clipper.step().skipped:
            with clipper.updating():
                optimizer.step()
    return model, clipper


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether all weights are equal, to the last bit."""
    theirs = second.parameters()
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), theirs, strict=True))
