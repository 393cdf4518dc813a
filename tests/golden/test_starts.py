"""From which gradient on each strategy acts, with its defaults, and what it does with the first.

Read from the code of the methods' authors; where a strategy differs on purpose, its docstring says
so. Gradients are counted from 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import gclip
from gclip import Transform

SPIKE, DIP = 1e4, 1e-4

# The settings switch off what acts besides: AdaGC's and ZClip's largest norm of all.
STARTS: dict[str, tuple[str, int, float]] = {
    "acclip": ("acclip", 1, SPIKE),  # τ holds this step's gradient
    "adagc": ("adagc(absolute=1e30)", 101, SPIKE),  # 100 steps by the global norm
    "adanorm": ("adanorm", 2, DIP),  # the mean, from 0, is behind the first norm
    "aggc": ("aggc", 2, SPIKE),
    "ema_ratio": ("ema_ratio", 2, SPIKE),  # OLMo: 3
    "lognormal_skip": ("lognormal_skip", 278, SPIKE),  # 1 − 0.995^277 > 0.75
    "median_window": ("median_window", 11, SPIKE),  # ten norms without the first
    "past_quantile": ("past_quantile", 2, SPIKE),
    "percentile": ("percentile", 2, SPIKE),
    "quantile_tracking": ("quantile_tracking", 1, SPIKE),  # a limit to start with
    "random": ("random", 1, SPIKE),
    "ratio_skip": ("ratio_skip", 2, SPIKE),  # axlearn: 1, if it is 20 or more
    "sigma_skip": ("sigma_skip", 64, SPIKE),
    "spam": ("spam", 20, SPIKE),
    "stable_spam": ("stable_spam", 1, SPIKE),
    "zclip": ("zclip(max_norm=none)", 26, SPIKE),
}


def with_memory() -> Iterator[str]:
    for name in gclip.names():
        strategy = gclip.create(name)
        like = torch.zeros(4) if isinstance(strategy, Transform) else torch.zeros(1)
        if strategy.remember(like):
            yield name


def is_changed(spec: str, place: int, factor: float) -> bool:
    """Whether the step is another than the gradient's where the one at `place` is unusual.

    The gradients before are of norms around a half, so that no limit of 1 is in their way.
    """
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([("layer.weight", weight)], lr=1.0)
    handle = gclip.attach(optimizer, spec)
    draw = torch.Generator().manual_seed(0)
    gradient = torch.zeros(2)
    for step in range(1, place + 1):
        gradient = _ordinary(draw) * (factor if step == place else 1.0)
        weight.grad = gradient.clone()
        weight.data.zero_()  # so that the weights are the step, to the bit
        optimizer.step()
    handle.remove()
    return not torch.equal(weight.data, -gradient)


def _ordinary(draw: torch.Generator) -> Tensor:
    return torch.tensor([0.3, -0.4]) * torch.exp(0.1 * torch.randn(1, generator=draw))


def test_every_strategy_with_a_memory_is_in_the_table() -> None:
    assert set(STARTS) == set(with_memory())


@pytest.mark.parametrize("name", STARTS)
def test_it_acts_from_that_gradient_on(name: str) -> None:
    spec, first, factor = STARTS[name]
    assert is_changed(spec, first, factor)
    for before in {first - 1, first // 2, 1} - {0, first}:
        assert not is_changed(spec, before, factor), f"acted on gradient {before}"
