"""A clamp in one pass: the same gradients, reports and records as by measuring first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gclip
from gclip.clipping import clamp_pass
from gclip.clipping.bound_clamp import BoundClamp

CLAMPS = ["value(clip_value=0.5)", "norm(max_norm=0.5, rule=clamp, scope=tensor)"]
LAYOUTS = {
    "together": {},
    "pieces": {"PIECE": 7, "SMALL": 0, "ALL_SMALL": 0},
    "both": {"PIECE": 7, "SMALL": 8, "ALL_SMALL": 0},
}
BEYOND = {"inf": math.inf, "minus inf": -math.inf, "nan": math.nan}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The limits of the steps that took one pass."""
    limits: list[float] = []
    clamp = BoundClamp.clamp_at_once

    def counted(self: BoundClamp, grads: Any, limit: float) -> None:
        limits.append(limit)
        clamp(self, grads, limit)

    monkeypatch.setattr(BoundClamp, "clamp_at_once", counted)
    return limits


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LAYOUTS[request.param].items():
        monkeypatch.setattr(clamp_pass, name, value)


def made(parameters: Any, fill: Any, spec: str, change: Any, *, once: bool, **settings: Any) -> Any:
    """Six steps: what each left and reported, and the record."""
    params = parameters()
    clipper = gclip.Clipper(params.items(), spec, **settings)
    with pytest.MonkeyPatch.context() as patch:
        if not once:
            patch.setattr(BoundClamp, "fixed_limit", lambda *_: None)
        steps = []
        for step in range(6):
            fill(params, step, 0.1 if step == 2 else 1.0)
            with torch.no_grad():
                change(step, params)
            report = clipper.step()
            grads = [param.grad.clone() for param in params.values()]
            steps.append((grads, report))
    return steps, clipper.record


def check_same(one: Any, other: Any) -> None:
    (steps, record), (expected, expected_record) = one, other
    for (grads, report), (wanted, wanted_report) in zip(steps, expected, strict=True):
        for grad, want in zip(grads, wanted, strict=True):
            torch.testing.assert_close(grad, want, rtol=0, atol=0, equal_nan=True)
        for name in ("norm", "limit", "clipped_norm", "clipped", "finite", "skipped"):
            found, known = getattr(report, name), getattr(wanted_report, name)
            torch.testing.assert_close(found, known, rtol=0, atol=0, equal_nan=True, msg=name)
        assert report.not_finite == wanted_report.not_finite
        assert report.scalars() == pytest.approx(wanted_report.scalars(), rel=1e-6, nan_ok=True)
    for name, column in expected_record.arrays().items():
        np.testing.assert_allclose(record.arrays()[name], column, rtol=1e-6, err_msg=name)
    assert record.first_not_finite == expected_record.first_not_finite


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("spec", CLAMPS)
@pytest.mark.parametrize("beyond", ["none", *BEYOND])
@pytest.mark.parametrize("nonfinite", ["skip", "keep"])
def test_the_same_as_measuring_first(
    spec: str, beyond: str, nonfinite: Any, parameters: Any, fill: Any, passes: list[float]
) -> None:
    def change(step: int, params: dict[str, nn.Parameter]) -> None:
        if step in (3, 4) and beyond != "none":
            grads = [param.grad for param in params.values()]
            grads[-2].view(-1)[-1] = BEYOND[beyond]
            grads[1 if step == 3 else -1].view(-1)[0] = BEYOND[beyond]

    given = {"parameters": parameters, "fill": fill, "spec": spec, "change": change}
    check_same(
        made(**given, once=True, nonfinite=nonfinite),
        made(**given, once=False, nonfinite=nonfinite),
    )
    assert len(passes) == 5  # all but the first, whose answers are looked at


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("size", [1e-30, 1e-21, 1e25, 1e38])
@pytest.mark.parametrize("limit", [0.0, 1e-25, 1e20])
def test_squares_that_float32_does_not_hold(
    size: float, limit: float, parameters: Any, fill: Any, passes: list[float]
) -> None:
    def change(step: int, params: dict[str, nn.Parameter]) -> None:
        for param in params.values():
            param.grad.clamp_(-3, 3).mul_(size)
            if step == 4:
                param.grad.zero_()

    spec = f"value(clip_value={limit})"
    given = {"parameters": parameters, "fill": fill, "spec": spec, "change": change}
    check_same(made(**given, once=True), made(**given, once=False))
    assert passes


@pytest.mark.usefixtures("layout")
def test_norms_are_those_of_float64(parameters: Any, fill: Any, passes: list[float]) -> None:
    params = parameters()
    clipper = gclip.Clipper(params.items(), "value(clip_value=0.5)")
    before, after = [], []
    for step in range(4):
        grads = np.concatenate([g.double().numpy().ravel() for g in fill(params, step).values()])
        before.append(np.linalg.norm(grads))
        after.append(np.linalg.norm(np.clip(grads, -0.5, 0.5)))
        clipper.step()
    arrays = clipper.record.arrays()
    np.testing.assert_allclose(arrays["norm"], before, rtol=1e-6)
    np.testing.assert_allclose(arrays["clipped_norm"], after, rtol=1e-6)
    assert len(passes) == 3


def test_nothing_is_written_where_nothing_is_beyond(
    parameters: Any, fill: Any, passes: list[float]
) -> None:
    params = parameters()
    clipper = gclip.Clipper(params.items(), "value(clip_value=10)")
    for step in range(3):
        fill(params, step)
        next(iter(params.values())).grad.fill_(20)  # the only one
        versions = [param.grad._version for param in params.values()]
        clipper.step()
        changed = [p.grad._version != v for p, v in zip(params.values(), versions, strict=True)]
        assert changed == [True] + [False] * (len(changed) - 1)
    assert len(passes) == 2


def test_shared_memory_is_separated_first(passes: list[float]) -> None:
    one, two = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
    clipper = gclip.Clipper([one, two], "value(clip_value=1)")
    for _ in range(2):
        one.grad = two.grad = torch.tensor([2.0, 0.5, -3.0, 0.0])
        clipper.step()
        assert one.grad.tolist() == two.grad.tolist() == [1.0, 0.5, -1.0, 0.0]
        assert one.grad.data_ptr() != two.grad.data_ptr()
    assert len(passes) == 1


SEVERAL: list[dict[str, Any]] = [
    {"strategy": "chain(value(clip_value=0.5), norm(max_norm=0.1))"},
    {"strategy": {"conv*": "value(clip_value=0.5)", "*": "norm"}},
    {"strategy": "value(clip_value=0.5, lower=-0.1)"},
    {"strategy": "value(clip_value=0.5, side=update)"},
    {"strategy": "percentile(scope=element)"},
    {"strategy": "norm(max_norm=0.5, rule=clamp)"},
    {"strategy": "norm(max_norm=0.5, rule=clamp, scope=layer)"},
    {"strategy": "norm(max_norm=0.5, rule=clamp, scope=unit)"},
    {"strategy": "value(clip_value=0.5)", "nonfinite": "raise"},
    {"strategy": "value(clip_value=0.5, warmup=9)"},
]


@pytest.mark.parametrize("settings", SEVERAL, ids=str)
def test_what_needs_more_than_one_pass(
    settings: dict[str, Any], parameters: Any, fill: Any, passes: list[float]
) -> None:
    params = parameters()
    optimizer = torch.optim.SGD(params.values(), lr=0.1)
    clipper = gclip.Clipper(params.items(), optimizer=optimizer, **settings)
    for step in range(3):
        fill(params, step)
        clipper.step()
        with clipper.updating():
            optimizer.step()
    assert not passes


@pytest.mark.parametrize("kind", ["half", "double", "complex", "missing", "transposed", "sparse"])
def test_gradients_of_other_kinds(kind: str, passes: list[float]) -> None:
    dtype = {"half": torch.float16, "double": torch.float64, "complex": torch.complex64}
    first = nn.Parameter(torch.zeros(3, 4, dtype=dtype.get(kind)))
    second = nn.Parameter(torch.zeros(3))
    clipper = gclip.Clipper([first, second], "value(clip_value=1)")
    for _ in range(2):
        first.grad = torch.full((3, 4), 5.0, dtype=first.dtype)
        second.grad = None if kind == "missing" else torch.full((3,), -5.0)
        if kind == "transposed":
            first.grad = torch.full((4, 3), 5.0).T
        if kind == "sparse":
            first.grad = torch.full((3, 4), 5.0).to_sparse(1)
        clipper.step()
        assert bool((first.grad.to_dense() == 1).all())
        assert second.grad is None or second.grad.tolist() == [-1.0] * 3
    assert not passes


@dataclass(frozen=True, kw_only=True)
class Fails(gclip.Strategy):
    """No limit at the third step."""

    scope: gclip.Scope = "element"
    rule: gclip.RuleName = "clamp"
    scopes = ("element",)

    def limit(self, seen: gclip.Seen, memory: gclip.Memory) -> float:
        return 1.0 / (seen.step - 2) ** 2


def test_a_limit_that_raises_is_explained_and_changes_nothing(passes: list[float]) -> None:
    weight = nn.Parameter(torch.zeros(2))
    clipper = gclip.Clipper([weight], Fails())
    for _ in range(2):
        weight.grad = torch.tensor([5.0, 0.0])
        clipper.step()
    weight.grad = torch.tensor([5.0, 0.0])
    with pytest.raises(gclip.UsageError, match="ZeroDivisionError"):
        clipper.step()
    assert weight.grad.tolist() == [5, 0]
    assert passes == [1.0]


@pytest.mark.parametrize("schedule", ["linear(1, 0.1)", "exponential(1, 0.01)"])
def test_a_schedule(schedule: str, parameters: Any, fill: Any, passes: list[float]) -> None:
    spec = f"value(clip_value={schedule})"
    given = {"parameters": parameters, "fill": fill, "spec": spec, "change": lambda *_: None}
    check_same(made(**given, once=True, total_steps=6), made(**given, once=False, total_steps=6))
    assert len(passes) == 5
    assert sorted(passes, reverse=True) == passes
