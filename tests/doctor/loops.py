"""A small training, and loops around it: most tests change one line of a good one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import gclip
from gclip.doctor import Findings
from gclip.doctor.places import Place


def two_layers(seed: int = 0) -> nn.Sequential:
    """Its parameters: 0.weight, 0.bias, 2.weight, 2.bias."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


@dataclass
class Training:
    """A model, its optimizer and endless batches; the same ones every time."""

    make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    lr: float = 0.01
    model: nn.Sequential = field(default_factory=two_layers)

    def __post_init__(self) -> None:
        self.optimizer: Any = self.make(self.model.parameters(), lr=self.lr)
        self.chance = torch.Generator().manual_seed(1)

    @property
    def params(self) -> list[nn.Parameter]:
        return list(self.model.parameters())

    def loss(self, size: float = 1.0) -> Tensor:
        inputs = torch.randn(16, 4, generator=self.chance)
        targets = torch.randn(16, 1, generator=self.chance)
        return size * (self.model(inputs) - targets).square().mean()

    def examine(self, step: Callable[[], Any], steps: int = 10, **named: Any) -> Findings:
        given = {"model": self.model, "optimizer": self.optimizer, **named}
        return gclip.doctor(step, steps=steps, **given)

    def loop(self, clip: Callable[[], Any], size: float = 1.0) -> Findings:
        """The findings of a good loop that clips so."""

        def step() -> None:
            self.optimizer.zero_grad()
            self.loss(size).backward()  # type: ignore[no-untyped-call]
            clip()
            self.optimizer.step()

        return self.examine(step)


def line_of(function: Callable[..., Any], text: str) -> str:
    """``tests/…/test_x.py:14``: the line of a function's source that holds this text."""
    lines, start = inspect.getsourcelines(function)
    [found] = [n for n, line in enumerate(lines) if text in line]
    return str(Place(function.__code__.co_filename, start + found))
