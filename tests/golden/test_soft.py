"""`soft` against the step of the method that it is a part of: mixed clipping, from its equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gclip

LR, GAMMA, BETA = 0.3, 0.5, 0.9
GRADIENTS = np.random.default_rng(0).standard_normal((12, 5)) * np.geomspace(0.01, 100, 12)[:, None]


def mixed_clipping(share: float) -> list[np.ndarray]:
    """The steps −η·(ν·m/(1 + η‖m‖/γ) + (1 − ν)·g/(1 + η‖g‖/γ)) with ν the `share` of m."""
    momentum, steps = GRADIENTS[0], []  # as torch, which starts m at the first gradient
    for step, g in enumerate(GRADIENTS):
        momentum = BETA * momentum + (1 - BETA) * g if step else g
        parts = [v / (1 + LR * np.linalg.norm(v) / GAMMA) for v in (momentum, g)]
        steps.append(-LR * (share * parts[0] + (1 - share) * parts[1]))
    return steps


@pytest.mark.parametrize(
    ("spec", "momentum", "share"),
    [
        (f"soft(max_norm={GAMMA / LR})", 0.0, 0.0),
        (f"soft(max_norm={GAMMA}, side=update)", 0.0, 0.0),
        (f"soft(max_norm={GAMMA}, side=update)", BETA, 1.0),
    ],
)
def test_it_is_mixed_clipping_of_the_gradient_or_of_the_momentum(
    spec: str, momentum: float, share: float
) -> None:
    weight = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=LR, momentum=momentum, dampening=momentum)
    gclip.attach(optimizer, spec)
    for gradient, want in zip(GRADIENTS, mixed_clipping(share), strict=True):
        weight.grad = torch.tensor(gradient)
        weight.data.zero_()
        optimizer.step()
        np.testing.assert_allclose(weight.detach().numpy(), want, rtol=1e-6)
