# mypy: ignore-errors
# Written as users write: without types.
"""A net and data of a user's own: the file that a user would write, given as ``--plugin``."""

from dataclasses import dataclass

import torch
from torch import nn

import gclip


@gclip.register_model("my-net")
def my_net(inputs, outputs, *, width: int = 6):
    return nn.Sequential(nn.Linear(inputs[0], width), nn.Tanh(), nn.Linear(width, outputs))


@gclip.register_problem("my-waves")
@dataclass(frozen=True, kw_only=True)
class MyWaves(gclip.Supervised):
    """Learn sin(frequency · x) from noisy points."""

    metric = gclip.Metric("mean squared error", better="lower", worst=1.0, low=0)
    defaults = {"model": "my-net", "lr": 0.1, "batch_size": 16, "epochs": 2}

    frequency: float = gclip.setting(2.0, above=0)

    def data(self, source):
        points = torch.Generator().manual_seed(1)
        x = 4 * torch.rand(120, 1, generator=points) - 2
        y = torch.sin(self.frequency * x) + 0.1 * torch.randn(120, 1, generator=points)
        return x[:80], y[:80], x[80:], y[80:]
