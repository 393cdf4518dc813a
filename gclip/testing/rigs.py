"""Parameters with a clipper: hand in gradients, get back what clipping left of them."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gclip.clipping.base_clipper import Nonfinite
from gclip.clipping.clipper import Clipper
from gclip.clipping.groups import Groups
from gclip.clipping.report import ClipReport
from gclip.core.strategy import Strategy, Transform, measured_order
from gclip.testing.gradients import SHAPES, Gradients, Shapes, gradients, weights

STEPS = 100
"""How many steps a run is said to have, for strategies and schedules that ask."""


@dataclass(frozen=True)
class Step:
    """What one step left.

    Attributes:
        grads: each parameter's gradient (or update) after clipping.
        norm, limit, clipped_norm, clipped: of the report, ``(groups,)``.
    """

    grads: Gradients
    norm: Tensor
    limit: Tensor
    clipped_norm: Tensor
    clipped: Tensor
    finite: Tensor
    skipped: Tensor


class Rig(ABC):
    """Named parameters with a clipper.

    Args:
        shapes: of the parameters.
        twice: whether every parameter is listed two times.
        copies: whether each parameter gets a copy of its gradient; else the tensor itself, which
            may share memory with others.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        seed: int = 0,
        shapes: Shapes = SHAPES,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        nonfinite: Nonfinite = "skip",
        twice: bool = False,
        copies: bool = True,
    ) -> None:
        self.strategy, self.shapes, self.seed = strategy, shapes, seed
        self._copies = copies
        self.params = {
            name: nn.Parameter(value.to(device, dtype))
            for name, value in weights(shapes, seed).items()
        }
        self.names = list(self.params)
        self._order = measured_order(strategy)
        sizes = [param.shape for param in self.params.values()]
        self._groups = Groups(
            self.names, sizes, "tensor" if isinstance(strategy, Transform) else strategy.scope
        )
        self.clipper = self._clipper(nonfinite, 2 if twice else 1)

    @abstractmethod
    def _clipper(self, nonfinite: Nonfinite, times: int) -> Clipper: ...

    @abstractmethod
    def step(self, grads: Mapping[str, Tensor | None]) -> Step:
        """Clip these gradients, one a parameter. Copies of them, unless the rig makes none."""

    @abstractmethod
    def unclipped(self, grads: Mapping[str, Tensor | None]) -> Gradients:
        """What is left, to the bit, of gradients that are not clipped."""

    @property
    def noise(self) -> float:
        """By how much an element of what is left may differ for no reason but rounding."""
        return 0.0

    def run(self, start: int, count: int) -> list[Step]:
        """Steps on made-up gradients of sizes that vary."""
        return [self.step(gradients(self.shapes, start + i, self.seed)) for i in range(count)]

    def to(self, dtype: torch.dtype) -> None:
        """Turn the parameters into others of this dtype, as a model's ``to`` does."""
        for param in self.params.values():
            param.grad = None
            param.data = param.data.to(dtype)

    def copy_parameters(self, other: Rig) -> None:
        """Take over the values of another's parameters of the same names."""
        for name, param in self.params.items():
            param.data.copy_(other.params[name].data)

    def affected(self, groups: Tensor) -> list[str]:
        """The parameters of which any group is marked, in a bool tensor ``(groups,)``."""
        marked = self._groups.changed(groups.cpu())
        return [name for name, mark in zip(self.names, marked, strict=True) if mark]

    def measured(self, grads: Mapping[str, Tensor | None]) -> Tensor:
        """The norms of the strategy's groups, measured anew with float64 sums, ``(groups,)``."""
        tensors = [grads[name] for name in self.names]
        device = next(iter(self.params.values())).device
        return self._groups.norms(tensors, self._order, device, float64=True)

    def saved(self) -> bytes:
        """The clipper's state as a file."""
        file = io.BytesIO()
        torch.save(self.clipper.state_dict(), file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        self.clipper.load_state_dict(torch.load(io.BytesIO(saved), weights_only=True))

    @property
    def memory(self) -> Any:
        """A copy of the strategy's memory."""
        return self.clipper.state_dict()["parts"][-1]["memory"]

    def _put(self, grads: Mapping[str, Tensor | None]) -> None:
        for name, param in self.params.items():
            grad = grads[name]
            if grad is not None and self._copies:
                grad = grad.to(param.device, param.dtype, copy=True)
            param.grad = grad

    def _step(self, grads: Gradients, report: ClipReport) -> Step:
        return Step(
            grads, report.norm, report.limit, report.clipped_norm, report.clipped,
            report.finite, report.skipped,
        )  # fmt: skip

    def _optimizer(self, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.params.values(), lr=lr)
