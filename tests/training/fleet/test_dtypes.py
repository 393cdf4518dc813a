"""A fleet does to float64, complex, tiny, huge and broken gradients what single runs do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gclip
from gclip.training.fleet.clipper import FleetClipper

SHAPES = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (2, 2, 2), "scale": ()}
SPECS = (
    "norm(max_norm=0.5)",
    "norm(max_norm=1e300)",
    "norm(max_norm=0.5, p=1)",
    "norm(max_norm=0.2, p=3, scope=unit)",
    "norm(max_norm=0.2, p=inf, scope=layer)",
    "norm(rule=normalize, scope=unit)",
    "norm(rule=normalize, p=1, scope=tensor)",
    "value(clip_value=0.3)",
    "percentile(scope=tensor)",
    "percentile(scope=unit, rule=clamp)",
    "zclip(scope=layer, warmup=3)",
    "ema_ratio(ratio=1.05)",
    "agc(clip_factor=0.05)",
    "spam(threshold=10, warmup=2)",
    "stable_spam",
    "power(p=0.5)",
    "spectral(threshold=0.4)",
    "norm(max_norm=0.01, p=1, side=update, scope=tensor)",
    "clippy",
)
KINDS = {
    "float64": (torch.float64, 1.0),
    "float64, huge": (torch.float64, 1e150),
    "float64, tiny": (torch.float64, 1e-200),
    "float32, large": (torch.float32, 1e25),
    "float32, tiny": (torch.float32, 1e-28),
    "complex64": (torch.complex64, 1.0),
    "float16": (torch.float16, 1.0),
}


class Both:
    """The same runs in a fleet and one by one."""

    def __init__(self, specs, dtype: torch.dtype, **how) -> None:
        chance = torch.Generator().manual_seed(0)
        runs = len(specs)
        start = {n: torch.randn((runs, *s), generator=chance).to(dtype) for n, s in SHAPES.items()}
        self.stacks = {n: nn.Parameter(t.clone()) for n, t in start.items()}
        self.runs = [{n: nn.Parameter(t[r].clone()) for n, t in start.items()} for r in range(runs)]
        self.joint = torch.optim.SGD(self.stacks.values(), lr=0.1)
        self.fleet = FleetClipper(self.stacks, specs, optimizer=self.joint, **how)
        self.own = [torch.optim.SGD(p.values(), lr=0.1) for p in self.runs]
        self.clippers = [
            gclip.Clipper(p.items(), spec, optimizer=o, **how)
            for p, spec, o in zip(self.runs, specs, self.own, strict=True)
        ]

    def to(self, dtype: torch.dtype) -> None:
        for param in (*self.stacks.values(), *(p for run in self.runs for p in run.values())):
            param.grad = None
            param.data = param.data.to(dtype)

    def step(self, index: int, size: float, broken: float | None = None) -> None:
        chance = torch.Generator().manual_seed(50 + index)
        for name, stack in self.stacks.items():
            grad = torch.randn(stack.shape, generator=chance, dtype=torch.float64) * size
            if name == "a.weight":
                grad[:, 1] = 0.0  # a dead unit
                if broken is not None:
                    grad[0, 0, 0] = broken
            if stack.is_complex():
                grad = grad * (0.6 + 0.8j)
            stack.grad = grad.to(stack.dtype)
            for run, own in enumerate(self.runs):
                own[name].grad = stack.grad[run].clone()
        self.fleet.step()
        for clipper in self.clippers:
            clipper.step()
        self.same({n: p.grad for n, p in self.stacks.items()}, "grad")
        with self.fleet.updating():
            self.joint.step()
        for clipper, optimizer in zip(self.clippers, self.own, strict=True):
            with clipper.updating():
                optimizer.step()
        self.same({n: p.detach() for n, p in self.stacks.items()}, "data")

    def same(self, stacks, what: str) -> None:
        for run, own in enumerate(self.runs):
            for name, stack in stacks.items():
                mine, theirs = stack[run], getattr(own[name], what)
                assert mine.dtype == theirs.dtype
                rtol = 2e-3 if mine.dtype == torch.float16 else 2e-6
                least = 1e-6 * float(theirs.abs().nan_to_num(0, 0, 0).max()) if theirs.ndim else 0.0
                torch.testing.assert_close(mine, theirs, rtol=rtol, atol=least, equal_nan=True)

    def records(self) -> None:
        for record, clipper in zip(self.fleet.records(), self.clippers, strict=True):
            mine, theirs = record.arrays(), clipper.record.arrays()
            for column in mine:
                a, b = (torch.from_numpy(each[column]).double() for each in (mine, theirs))
                torch.testing.assert_close(a, b, rtol=1e-5, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", SPECS)
def test_as_one_by_one(spec: str, kind: str) -> None:
    dtype, size = KINDS[kind]
    if size > 1 and ("stable_spam" in spec or spec.startswith("spam")):
        size = math.sqrt(size)  # squares of single elements are kept
    both = Both([spec] * 3, dtype)
    for index in range(6):
        both.step(index, size)
    both.records()
    assert not both.fleet.report.skipped.any()


@pytest.mark.parametrize("kind", ["float64", "float32, large", "complex64"])
def test_runs_with_other_numbers(kind: str) -> None:
    dtype, size = KINDS[kind]
    for spec in ("norm(max_norm={}, p=3)", "norm(max_norm={}, scope=unit)", "value(clip_value={})"):
        both = Both([spec.format(limit) for limit in (0.1, 1e300, 2.0)], dtype)
        for index in range(3):
            both.step(index, size)
        both.records()


@pytest.mark.parametrize("spec", SPECS)
def test_another_dtype_in_mid_training(spec: str) -> None:
    both = Both([spec] * 2, torch.float32)
    for index in range(9):
        both.to(torch.float64 if 3 <= index < 6 else torch.float32)
        both.step(index, 1.0)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("spec", SPECS)
def test_keep(spec: str, broken: float) -> None:
    if "update" in spec or spec == "clippy":
        return  # a parameter that is not finite stays so
    both = Both([spec] * 3, torch.float32, nonfinite="keep")
    for index in range(3):
        both.step(index, 1.0)
    both.step(3, 1.0, broken)
    both.records()


@pytest.mark.parametrize("p", [1.0, 3.0, math.inf])
@pytest.mark.parametrize("scope", ["global", "layer", "tensor", "unit"])
def test_records_hold_l2_norms_whatever_the_strategy_measures(p: float, scope: str) -> None:
    both = Both([f"norm(max_norm=0.5, p={p:g}, scope={scope})"] * 2, torch.float32)
    grads = []
    for index in range(2):
        chance = torch.Generator().manual_seed(50 + index)
        each = [
            torch.randn((2, *s), generator=chance, dtype=torch.float64) for s in SHAPES.values()
        ]
        each[0][:, 1] = 0.0
        grads.append(
            torch.stack([torch.cat([g[r].flatten() for g in each]).norm() for r in (0, 1)])
        )
        both.step(index, 1.0)
        for run in (0, 1):
            left = torch.cat([p.grad.flatten() for p in both.runs[run].values()]).norm().item()
            for record in (both.clippers[run].record, both.fleet.records()[run]):
                rows = record.arrays()
                assert rows["norm"][-1] == pytest.approx(grads[-1][run].item(), rel=1e-5)
                assert rows["clipped_norm"][-1] == pytest.approx(left, rel=1e-5)
        torch.testing.assert_close(both.fleet.report.norm.double(), grads[-1], rtol=1e-5, atol=0.0)
