"""``gclip bench growth``: how the time of a clip call grows with what is clipped."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from gclip.clipping.clipper import Clipper
from gclip.core import registry

STRATEGIES = ("norm", "agc", "percentile", "zclip")
_CALLS = 7


def rows(
    strategies: Sequence[str] = STRATEGIES,
    *,
    seconds: float = 0.2,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """``case, grows, from, to, first_us, last_us, exponent`` of each strategy.

    Grown are the parameters of 16 tensors; the tensors, of 4,096 parameters each; the groups, by
    the scope ``unit`` over more and more rows of 65,536 parameters in all; and the steps that the
    strategy has seen. The exponent is that of the time's growth, fitted by least squares to the
    logarithms of the medians: 1 where it grows in proportion, 0 where it does not grow.

    Args:
        strategies: names or spellings.
        seconds: each point is measured for about that long.
        device: of the gradients; of a GPU a call is timed until its work is done.
        progress: told what is measured next.

    Raises:
        UsageError: a strategy that is unknown, or cannot have the scope ``unit``.
    """
    measured = []
    for strategy in strategies:
        for grown, sizes in _SIZES.items():
            progress(f"{strategy}: {grown}")
            times = [_median(strategy, grown, size, seconds, device) for size in sizes]
            measured.append({
                "case": strategy, "grows": grown, "from": sizes[0], "to": sizes[-1],
                "first_us": 1e6 * times[0], "last_us": 1e6 * times[-1],
                "exponent": exponent(sizes, times),
            })  # fmt: skip
    return measured


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """By which power of the sizes the times grow.

    Example:
        >>> round(exponent([1, 10, 100], [2.0, 20.0, 200.0]), 6)
        1.0
    """
    slope, _ = np.polyfit(np.log(np.asarray(sizes, float)), np.log(np.asarray(times, float)), 1)
    return float(slope)


_SIZES: dict[str, tuple[int, ...]] = {
    "parameters": (2**14, 2**16, 2**18, 2**20, 2**22),
    "tensors": (4, 16, 64, 256),
    "groups": (64, 512, 4096, 32_768),
    "steps": (100, 1000, 10_000),
}


def _median(strategy: str, grown: str, size: int, seconds: float, device: str) -> float:
    """Seconds of a call."""
    if grown == "parameters":
        shapes = [(16, size // 256)] * 16
    elif grown == "tensors":
        shapes = [(16, 256)] * size
    elif grown == "groups":
        shapes = [(size, 2**16 // size)]
    else:
        shapes = [(16, 256)] * 4
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    weights = [torch.nn.Parameter(each) for each in values]
    gradients = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    chosen = registry.parse(strategy)
    clipper = Clipper(weights, _in_units(strategy) if grown == "groups" else chosen)

    def step() -> float:
        for weight, gradient in zip(weights, gradients, strict=True):
            if weight.grad is None:
                weight.grad = gradient.clone()
            else:
                weight.grad.copy_(gradient)
        _synchronize(device)
        start = time.perf_counter()
        clipper.step()
        _synchronize(device)
        return time.perf_counter() - start

    for _ in range(size if grown == "steps" else _CALLS):
        step()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < _CALLS:
        times.append(step())
    return statistics.median(times)


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _in_units(strategy: str) -> str:
    name, bracket, rest = strategy.partition("(")
    return f"{name}(scope=unit, {rest}" if bracket else f"{name}(scope=unit)"
