# mypy: ignore-errors
# Written as users write: without types.
"""Models that each break one promise of the contract, and what they are otherwise: sound."""

from __future__ import annotations

import random

import torch
from torch import nn

import gclip


class Net(nn.Module):
    """A layer of tanh units and a linear one, over what is flattened."""

    def __init__(self, inputs, outputs):
        super().__init__()
        features = torch.Size(inputs).numel()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(features, 4), nn.Tanh())
        self.head = nn.Linear(4, outputs)

    def forward(self, x):
        return self.head(self.body(x))


@gclip.register_model("sound-net")
def sound(inputs, outputs):
    """Two layers."""
    return Net(inputs, outputs)


@gclip.register_model("undocumented-net")
def undocumented(inputs, outputs):
    return Net(inputs, outputs)


@gclip.register_model("wide")
def wide(inputs, outputs):
    """One output too many."""
    return Net(inputs, max(outputs, 2))


class NeedsTwo(Net):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.body.append(nn.BatchNorm1d(4))


@gclip.register_model("needs-two")
def needs_two(inputs, outputs):
    """Batch normalisation of single numbers, which one example cannot train."""
    return NeedsTwo(inputs, outputs)


class Mixes(Net):
    def forward(self, x):
        hidden = self.body(x)
        return self.head(hidden - hidden.mean(0))


@gclip.register_model("mixes")
def mixes(inputs, outputs):
    """Takes the mean over the batch, in evaluation, too."""
    return Mixes(inputs, outputs)


class ReadsMemory(Net):
    def forward(self, x):
        return super().forward(torch.as_strided(x, x.shape, torch.empty(x.shape).stride()))


@gclip.register_model("reads-memory")
def reads_memory(inputs, outputs):
    """Takes it for granted how images are laid out."""
    return ReadsMemory(inputs, outputs)


@gclip.register_model("draws-elsewhere")
def draws_elsewhere(inputs, outputs):
    """Weights by Python's global generator, put back afterwards."""
    net, state = Net(inputs, outputs), random.getstate()
    nn.init.constant_(net.head.bias, random.random())
    random.setstate(state)
    return net


@gclip.register_model("one-seed-net")
def one_seed(inputs, outputs):
    """The same weights for every seed."""
    torch.manual_seed(0)
    return Net(inputs, outputs)


@gclip.register_model("seeds-the-world-net")
def seeds_the_world(inputs, outputs):
    """Sets Python's global generator."""
    random.seed(0)
    return Net(inputs, outputs)


class Remembers(Net):
    level = 0.0

    def forward(self, x):
        if self.training:
            self.level = float(x.detach().mean())
        return super().forward(x) + self.level


@gclip.register_model("remembers")
def remembers(inputs, outputs):
    """A number that is no buffer."""
    return Remembers(inputs, outputs)


class Unused(Net):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.other = nn.Linear(2, 2)


@gclip.register_model("unused")
def unused(inputs, outputs):
    """A layer that nothing passes."""
    return Unused(inputs, outputs)


class KeepsItsGraph(Net):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.last = None

    def forward(self, x):
        found = super().forward(x)
        if not (self.training and torch.is_grad_enabled()):
            return found
        if self.last is not None:
            found = found + 0 * self.last
        self.last = found.mean()
        return found


@gclip.register_model("keeps-its-graph")
def keeps_its_graph(inputs, outputs):
    """A hidden state that is not detached between batches."""
    return KeepsItsGraph(inputs, outputs)
