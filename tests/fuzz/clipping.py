"""Clipping of any gradients: shapes × dtypes × scopes × rules × sides × sizes of numbers.

What is promised of every strategy: out of finite gradients come finite ones; what was not clipped
keeps its bits; a limit is kept; and no gradient grows but under ``normalize``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

import gclip
from gclip.core.strategy import Transform, measured_order
from gclip.errors import UsageError
from tests.fuzz.examples import check_sentence, in_time

SHAPES = ((), (0,), (1,), (3,), (2, 3), (1, 4), (2, 1, 3), (2, 2, 1, 2), (4, 0))
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SIZES = (0.0, 1e-45, 1e-39, 1e-20, 1e-7, 0.3, 1.0, 3.0, 1e4, 1e10, 1e19, 2e19, 1e30, 3e38)
"""Magnitudes, as far as a dtype holds them."""
MARGIN = {torch.float32: 1e-4, torch.float64: 1e-9, torch.float16: 4e-3, torch.bfloat16: 3e-2}
GROWS = ("adanorm",)
FLOORS = ("aggc", "delta")
"""Strategies that raise small gradients to their average, and those that shrink none below a share
of itself: both as their papers have it."""


class Case(NamedTuple):
    """A clipper, and the sizes of the gradients that it is given, step by step."""

    spec: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    steps: tuple[tuple[float, ...], ...]
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from([n for n in gclip.names() if n != "per_sample"]))
    cls: Any = gclip.get(name)
    settings = {}
    for what, choices in (("scope", cls.scopes), ("rule", cls.rules), ("side", cls.sides)):
        choices = [choice for choice in choices if choice != "sample"]
        if draw(st.booleans()) and choices:
            settings[what] = draw(st.sampled_from(choices))
    shapes = tuple(draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3)))
    size = st.tuples(*[st.sampled_from(SIZES)] * len(shapes))
    return Case(
        f"{name}({', '.join(f'{key}={value}' for key, value in settings.items())})",
        shapes,
        draw(st.sampled_from(DTYPES)),
        tuple(draw(st.lists(size, min_size=1, max_size=4))),
        draw(st.integers(0, 99)),
    )


def check(case: Case) -> None:
    """Clip, and hold the promises."""
    with in_time(case):
        generator = torch.Generator().manual_seed(case.seed)
        params = {
            f"layer{i}.weight": torch.nn.Parameter(
                torch.randn(shape, generator=generator).to(case.dtype)
            )
            for i, shape in enumerate(case.shapes)
        }
        optimizer = torch.optim.SGD(params.values(), lr=1e-3)
        try:
            clipper = gclip.Clipper(params.items(), case.spec, optimizer=optimizer)
        except UsageError as error:
            check_sentence(str(error))
            return
        for sizes in case.steps:
            given = _give(params, sizes, generator)
            try:
                report = clipper.step()
            except UsageError as error:
                check_sentence(str(error))
                return
            if clipper.on_updates:
                with clipper.updating():
                    optimizer.step()
            else:
                _hold(case, clipper, report, params, given)
            assert all(bool(torch.isfinite(p).all()) for p in params.values()), case


def _give(params: Any, sizes: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Finite gradients of about these sizes."""
    for param, size in zip(params.values(), sizes, strict=True):
        most = torch.finfo(param.dtype).max / 8
        grad = torch.randn(param.shape, generator=generator, dtype=torch.float64).clamp(-4, 4)
        param.grad = (grad * min(size, most)).to(param.dtype)
    return {name: param.grad.clone() for name, param in params.items()}


def _hold(case: Case, clipper: Any, report: Any, params: Any, given: Any) -> None:
    strategy = clipper.parts[0].strategy
    clipped = bool(report.clipped.any())
    transforms = isinstance(strategy, Transform)
    may_not_grow = strategy.rule != "normalize" and strategy.name not in GROWS and not transforms
    for name, param in params.items():
        assert bool(torch.isfinite(param.grad).all()), (case, name)
        if not clipped and not bool(report.skipped):
            assert torch.equal(param.grad, given[name]), (case, name)
        if may_not_grow:
            grown = param.grad.abs().double() > given[name].abs().double() * (
                1 + MARGIN[case.dtype]
            )
            assert not bool(grown.any()), (case, name)
    if strategy.rule in ("scale", "clamp") and strategy.name not in FLOORS and not transforms:
        _hold_limits(case, strategy, report, params)


def _hold_limits(case: Case, strategy: Any, report: Any, params: Any) -> None:
    """Norms once more, in float64, against the limits that the report gives."""
    order = measured_order(strategy)
    flat = {name: p.grad.double().reshape(-1) for name, p in params.items()}
    groups = {"all": torch.cat(list(flat.values())), **flat}
    for label, limit in zip(report.groups, report.limit.double().tolist(), strict=True):
        values = groups.get(label)
        if values is None or not values.numel() or not math.isfinite(limit) or limit < 0:
            continue
        norm = float(torch.linalg.vector_norm(values, order))
        # Half precision rounds each element, and its smallest numbers to multiples of one.
        tiny = torch.finfo(case.dtype).smallest_normal * values.numel()
        assert norm <= limit * (1 + 10 * MARGIN[case.dtype]) + tiny, (case, label, norm, limit)
