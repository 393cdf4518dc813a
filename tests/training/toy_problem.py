# mypy: ignore-errors
# Written as users write: without types.
"""A problem small enough to be done by hand, as a plugin's file would have it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

import gclip

BATCHES = 6


@gclip.register_problem("toy-line")
@dataclass(frozen=True, kw_only=True)
class ToyLine(gclip.Problem):
    """Fit a line: y = slope · x + 2, from fresh points in every batch."""

    metric = gclip.Metric("mean squared error", better="lower", worst=20.0, low=0)
    defaults = {"optimizer": "sgd", "lr": 0.1, "batch_size": 8, "epochs": 3}

    slope: float = gclip.setting(3.0, doc="of the line")
    dropout: float = gclip.setting(0.0, at_least=0, below=1, doc="share of hidden units dropped")

    def players(self, config):
        return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Dropout(self.dropout), nn.Linear(4, 1))

    def setup(self, state):
        state.keep["seen"] = 0

    def batches_per_epoch(self, state):
        return BATCHES

    def batches(self, state, epoch):
        for _ in range(BATCHES):
            x = torch.randn(state.config.batch_size, 1, generator=state.generator("batches"))
            state.keep["seen"] += len(x)
            yield x.to(state.device), (self.slope * x + 2).to(state.device)

    def losses(self, players, batch):
        x, y = batch
        yield "model", (players["model"](x) - y).square().mean()

    def evaluate(self, players, state, split):
        x = torch.linspace(-1, 1, 21, device=state.device)[:, None]
        error = players["model"](x) - (self.slope * x + 2)
        return {"mean squared error": error.square().mean(), "seen": state.keep["seen"]}


@gclip.register_problem("toy-pair")
@dataclass(frozen=True, kw_only=True)
class ToyPair(gclip.Problem):
    """Two players pull one number apart: a minimises (a − b)², b minimises −(a − b)²/2."""

    metric = gclip.Metric("distance", better="higher", worst=0.0, low=0)
    defaults = {"optimizer": "sgd", "lr": 0.05, "batch_size": 1, "epochs": 2}
    updates = {"b": 2}

    def players(self, config):
        return {"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)}

    def batches_per_epoch(self, state):
        return 4

    def batches(self, state, epoch):
        return [torch.ones(1, 1, device=state.device)] * 4

    def losses(self, players, batch):
        a, b = players["a"], players["b"]
        yield "a", (a(batch) - b(batch)).square().sum()
        for _ in range(2):
            yield "b", -(a(batch) - b(batch)).square().sum() / 2

    def evaluate(self, players, state, split):
        return {"distance": float((players["a"].weight - players["b"].weight).abs())}
