"""A straight line through points: the textbook's first example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from gclip.core.fields import setting
from gclip.training.config import RunConfig
from gclip.training.dataset import Dataset
from gclip.training.metric import Metric
from gclip.training.problem import Source
from gclip.training.run_state import RunState
from gclip.training.supervised import Supervised
from gclip.training.tasks import register_problem

_SEED = 1805  # of the points: Legendre's year
_WIDTH = 3.0  # inputs are uniform in ±this


def least_squares(inputs: Tensor, targets: Tensor) -> Tensor:
    """The line with the smallest mean squared error, in closed form.

    Args:
        inputs: ``(N, 1)``.
        targets: ``(N,)`` or ``(N, 1)``.

    Returns:
        Slope and intercept, float64 ``(2,)``.
    """
    x = inputs.double().reshape(-1, 1)
    design = torch.cat((x, torch.ones_like(x)), 1)
    solved: Tensor = torch.linalg.lstsq(design, targets.double().reshape(-1, 1)).solution
    return solved.flatten()


@register_problem("linear")
@dataclass(frozen=True, kw_only=True)
class Linear(Supervised):
    """Fit slope and intercept of y = 3x + 2 + noise by gradient descent.

    Least squares has a closed form (Legendre, 1805), so that what descent with clipped gradients
    finds can be held against the right answer: beside the error stands the distance of slope and
    intercept to those of least squares on the same points.

    Nothing explodes at the default rate, and a problem without trouble is the control: clipping a
    gradient's norm or values at 1 changes next to nothing, and strategies that hold every step
    small beside the weights (``agc``) are not there yet when the run ends. At ``--lr 2`` the
    descent without clipping diverges.
    """

    slope: float = setting(3.0, doc="of the true line")
    intercept: float = setting(2.0, doc="of the true line")
    noise: float = setting(0.5, at_least=0, doc="standard deviation of y around the line")
    count: int = setting(500, at_least=10, doc="points; a fifth of them are held out to test on")

    own_models = True
    metric = Metric("mean squared error", better="lower", worst=31.25, low=0.0)
    defaults = {"optimizer": "sgd", "lr": 0.01, "batch_size": 32, "epochs": 10}
    small = {"epochs": 2, "count": 50}

    def data(self, source: Source) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The points, the same in every run: inputs ``(N, 1)`` and targets ``(N,)``."""
        generator = torch.Generator().manual_seed(_SEED)
        x = (torch.rand(self.count, 1, generator=generator) * 2 - 1) * _WIDTH
        noise = torch.randn(self.count, generator=generator)
        y = self.slope * x[:, 0] + self.intercept + self.noise * noise
        tested = self.count // 5
        return x[tested:], y[tested:], x[:tested], y[:tested]

    def players(self, config: RunConfig) -> nn.Module:
        """One weight, the slope, and one bias, the intercept."""
        return nn.Linear(1, 1)

    def evaluate(
        self, players: Mapping[str, nn.Module], state: RunState, split: str
    ) -> Mapping[str, float]:
        """The error, and how far the line is from that of least squares on what is learned from."""
        model = cast(nn.Linear, players["model"])
        found = torch.cat((model.weight.flatten(), model.bias)).double().cpu()
        distance = float((found - self._best(state)).norm())
        scores = super().evaluate(players, state, split)
        return {**scores, "distance to least squares": distance}

    def _best(self, state: RunState) -> Tensor:
        if "least squares" not in state.cache:
            chosen = state.config.select_from(cast(Dataset, state.data))
            inputs, targets = chosen.train_images.cpu(), chosen.train_labels.cpu()
            state.cache["least squares"] = least_squares(inputs, targets)
        return cast(Tensor, state.cache["least squares"])
