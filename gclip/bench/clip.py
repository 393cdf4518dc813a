"""``gclip bench clip``: one clip call against torch's and timm's, on the gradients of real nets.

Every row times two callables in alternation, so that whatever else the machine does hits both;
the figure is the ratio of their median times. Gradients are restored before each call, outside
the timed part.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gclip.bench import roofline
from gclip.bench.gradients import SIZE, give_gradients
from gclip.clipping.clipper import Clipper
from gclip.core.quantile import push
from gclip.core.registry import create
from gclip.training.models import build

Call = Callable[[], Any]
Case = tuple[str, Call, str, Call, tuple[int, int]]
CACHED = 32 * 2**20  # bytes: what a cache may hold
PAST_STEPS = 100_000


def rows(
    models: tuple[str, ...] = ("lenet", "resnet18"),
    seconds: float = 2.0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row a case: `case`, `peer`, both medians in microseconds, `speedup`, and `roofline`.

    `speedup` is the peer's median time over ours: above 1 we are faster. `roofline` is our time
    over the time that the memory traffic takes at the bandwidth measured here; None for nets that
    a cache holds. A peer that is not installed has a row with its `reason` and no numbers.

    Args:
        models: nets, by their names.
        seconds: each row measures for about that long.
        progress: told what is measured next.
    """
    measured: list[dict[str, Any]] = []
    progress("the bandwidth of this machine's memory")
    memory = roofline.measure()
    for model in models:
        params = list(build(model, seed=0).named_parameters())
        reset = give_gradients([p for _, p in params])
        size = 4 * sum(p.numel() for _, p in params)
        for case, ours, peer, theirs, passes in _cases(params):
            progress(f"{model} {case}")
            our_time, peer_time = _paired(ours, theirs, reset, seconds)
            measured.append(
                {
                    "case": f"{model} {case}", "peer": peer, "speedup": peer_time / our_time,
                    "ours_us": our_time * 1e6, "peer_us": peer_time * 1e6,
                    "roofline": our_time / memory.floor(size, *passes) if size > CACHED else None,
                }
            )  # fmt: skip
        for case, ours, make in _jax_cases(params):
            row = {"case": f"{model} {case}", "peer": "optax, jitted, donated"}
            try:
                theirs, restore = make()
            except ImportError:
                measured.append({**row, "speedup": None, "reason": "jax or optax is not installed"})
                continue

            both = _after(reset, restore)
            our_time, peer_time = _paired(ours, theirs, both, seconds)
            measured.append(
                {
                    **row,
                    "speedup": peer_time / our_time,
                    "ours_us": our_time * 1e6,
                    "peer_us": peer_time * 1e6,
                }
            )
    return measured


def _after(first: Call, then: Call) -> Call:
    return lambda: (first(), then())


def _cases(params: list[tuple[str, nn.Parameter]]) -> list[Case]:
    """What is compared: case, our call, the peer's name, the peer's call; and how often we must
    read the gradients (or the weights), and how often read and write them."""
    tensors = [p for _, p in params]
    size = sum(p.numel() for p in tensors)
    clip_norm, clip_value = nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_
    norm = Clipper(params, create("norm", max_norm=0.1)).step
    loose = Clipper(params, "norm(max_norm=1e9)").step
    value = create("value", clip_value=0.01)
    bare = Clipper(params, value, nonfinite="keep", record=False).step
    cases: list[Case] = [
        ("norm", norm, "torch clip_grad_norm_", lambda: clip_norm(tensors, 0.1), (1, 1)),
        (
            "norm, nothing to clip", loose,
            "torch clip_grad_norm_", lambda: clip_norm(tensors, 1e9), (1, 0),
        ),
        (
            "value, unchecked and unrecorded as the peer", bare,
            "torch clip_grad_value_", lambda: clip_value(tensors, 0.01), (0, 1),
        ),
        (
            "value, checked and recorded", Clipper(params, value).step,
            "torch clip_grad_value_", lambda: clip_value(tensors, 0.01), (2, 1),
        ),
        (
            f"percentile after {PAST_STEPS:,} steps", _aged(params, size),
            "gclip norm", norm, (1, 1),
        ),
    ]  # fmt: skip
    timm = _timm_agc()
    if timm is not None:
        agc = Clipper(params, create("agc", clip_factor=0.001)).step
        cases.append(("agc", agc, "timm adaptive_clip_grad", lambda: timm(tensors, 0.001), (2, 1)))
    return cases


def _aged(params: list[tuple[str, nn.Parameter]], size: int) -> Call:
    """A percentile clipper that has seen `PAST_STEPS` steps; every step clips, as `norm`'s do."""
    clipper = Clipper(params, "percentile")
    clipper.step()
    state = clipper.state_dict()
    generator = torch.Generator().manual_seed(0)
    past = state["parts"][0]["memory"]["past"]
    middle = SIZE * size**0.5  # the norm of the benchmark's gradients
    for norm in middle * (0.5 + torch.rand(PAST_STEPS, generator=generator)):
        past = push(past, norm.view(1))
    state["parts"][0]["memory"]["past"] = past
    clipper.load_state_dict(state)
    return clipper.step


def _paired(ours: Call, theirs: Call, reset: Call, seconds: float) -> tuple[float, float]:
    """Median seconds of each, called in alternation."""
    calls = (ours, theirs)
    times: tuple[list[float], list[float]] = ([], [])
    for call in calls * 3:
        reset(), call()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times[0]) < 15:
        for place in (0, 1) if len(times[0]) % 2 else (1, 0):
            reset()
            start = time.perf_counter()
            calls[place]()
            times[place].append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def _jax_cases(
    params: list[tuple[str, nn.Parameter]],
) -> list[tuple[str, Call, Callable[[], tuple[Call, Call]]]]:
    """Case, our call, and what makes optax's call and the one that restores its gradients."""
    norm = Clipper(params, create("norm", max_norm=0.1)).step
    agc = Clipper(params, create("agc", clip_factor=0.001)).step
    return [
        ("norm", norm, lambda: _optax(params, "clip_by_global_norm", 0.1)),
        ("agc", agc, lambda: _optax(params, "adaptive_grad_clip", 0.001)),
    ]


def _optax(params: list[tuple[str, nn.Parameter]], name: str, limit: float) -> tuple[Call, Call]:
    """One of optax's clips, compiled, its gradients' memory given to the result."""
    jax: Any = importlib.import_module("jax")
    optax: Any = importlib.import_module("optax")

    weights = [jax.numpy.asarray(p.detach().numpy()) for _, p in params]
    saved = [p.grad.numpy().copy() for _, p in params if p.grad is not None]
    method = getattr(optax, name)(limit)
    state = method.init(weights)
    clip = jax.jit(lambda grads, at: method.update(grads, state, at)[0], donate_argnums=0)
    now: list[Any] = []

    def restore() -> None:
        now[:] = [jax.numpy.array(grad) for grad in saved]
        jax.block_until_ready(now)

    def call() -> None:
        jax.block_until_ready(clip(list(now), weights))

    return call, restore


def _timm_agc() -> Callable[..., Any] | None:
    """timm's AGC, or None where timm is not installed."""
    try:
        from timm.utils.agc import adaptive_clip_grad
    except ImportError:
        return None
    call: Callable[..., Any] = adaptive_clip_grad
    return call
