"""Do runs asked together decide what each would decide alone? Tried on numbers."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import torch
from torch import Tensor

from gclip.clipping.rules import decide, remember_step, transformed
from gclip.core.seen import Elements, Seen
from gclip.core.strategy import Memory, Strategy, Transform
from gclip.errors import UsageError
from gclip.training.fleet.vectorized_strategy import VectorizedStrategy

STEPS = 16  # of a trial
RUNS = 8  # at most this many different settings are tried
_EXACT, _CLOSE = 5e-7, 1e-5


def is_vectorizable(strategies: tuple[Strategy, ...]) -> bool:
    """Whether these, one a run, decide together what each decides alone."""
    distinct = tuple(dict.fromkeys(strategies))
    if len(distinct) == 1:
        return _vectorizable((distinct[0], distinct[0]))
    step = max(1, len(distinct) // RUNS)
    return _vectorizable(distinct[::step][:RUNS])


@lru_cache(maxsize=1024)
def _vectorizable(strategies: tuple[Strategy, ...]) -> bool:
    strategies = tuple(map(_with_short_warmup, strategies))
    inputs = _sample_inputs(strategies[0], len(strategies))
    equal = len(set(strategies)) == 1
    try:
        found = _run(VectorizedStrategy(strategies, STEPS), inputs)
        for run, each in enumerate(strategies):
            # Equal settings are compared with one run alone; different ones with as many runs that
            # are equal, so that nothing but the fields being tensors can make a difference.
            if equal:
                expected = _run(
                    VectorizedStrategy([each], STEPS, unbatched=True), inputs[:, run : run + 1]
                )
            else:
                expected = _run(VectorizedStrategy([each] * len(strategies), STEPS), inputs)
            index, tolerance = (0, _CLOSE) if equal else (run, _EXACT)
            if not all(
                _close(a[run], b[index], tolerance) for a, b in zip(found, expected, strict=True)
            ):
                return False
    except Exception:  # whatever a strategy does with a tensor that it takes for a number
        return False
    return True


def _with_short_warmup(strategy: Strategy) -> Strategy:
    """With a short warm-up, so that a trial sees what comes after it."""
    try:
        return dataclasses.replace(strategy, warmup=min(strategy.warmup, 3))
    except UsageError:
        return strategy


def _sample_inputs(strategy: Strategy, runs: int) -> Tensor:
    """What each step sees, ``(steps, runs, …)``: all sizes, a zero, and NaN for one run once."""
    shape: tuple[int, ...] = (3,)
    if isinstance(strategy, Transform):
        shape = (2, 3) if strategy.view == "matrix" else (6,)
    generator = torch.Generator().manual_seed(0)
    size = torch.randn((runs, *[1] * len(shape)), generator=generator, dtype=torch.float32)
    each = torch.randn((STEPS, runs, *shape), generator=generator, dtype=torch.float32)
    inputs = (2 * size + each).exp()
    if isinstance(strategy, Transform):
        half = torch.rand(inputs.shape, generator=generator, dtype=torch.float32) < 0.5
        inputs = torch.where(half, inputs, -inputs)
    inputs[5].flatten()[0] = 0.0
    inputs[7].flatten()[-1] = torch.nan
    return inputs


def _run(vectorized: VectorizedStrategy, inputs: Tensor) -> list[Tensor]:
    """What a strategy decides in each step, and what it remembers at the end: ``(runs, …)``."""
    if vectorized.unbatched:
        inputs = inputs[:, 0]
    memory: Memory | None = None
    found: list[Tensor] = []
    for step, values in enumerate(inputs):
        now = vectorized.at(step, values.device, values.dtype)
        memory = now.remember(torch.zeros_like(values)) if memory is None else memory
        finite = torch.isfinite(values)
        while finite.ndim > (0 if vectorized.unbatched else 1):
            finite = finite.all(dim=-1)
        valid = None if bool(finite.all()) else finite.view(-1, *[1] * (inputs.ndim - 2))
        if valid is not None and vectorized.unbatched:
            valid = finite.expand_as(values)
        ones = torch.ones_like(values)
        if isinstance(now, Transform):
            elements = Elements(values, step=step, weight=ones, grad=values, lr=0.1)
            clipped, memory = transformed(now, elements, memory, valid)
            found.append(clipped)
            continue
        valid = None if valid is None else valid.expand_as(values)
        seen = Seen(
            values, step=step, weight_norm=ones, size=10 * ones, lr=0.1, weight_decay=0.01,
            valid=valid, total_steps=STEPS,
        )  # fmt: skip
        decision = decide(now, seen, memory)
        memory = remember_step(now, seen, decision.clipped_norm, memory, valid)
        found += [decision.limit, decision.factor, decision.clipped_norm, decision.clipped]
    return [t.unsqueeze(0) for t in found] if vectorized.unbatched else found


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.dtype == torch.bool:
        return torch.equal(a, b)
    return torch.allclose(a, b, rtol=tolerance, atol=0.0, equal_nan=True)
