"""A fleet's clipper does to each run what that run's own clipper would do."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import gclip
from gclip.errors import UsageError
from gclip.testing.devices import _Moves
from gclip.training.fleet.clipper import FleetClipper
from gclip.training.fleet.grouping import group_vectorizable
from gclip.training.fleet.nonfinite import NotFinite

RUNS, STEPS = 5, 30
SHAPES = {
    "conv.weight": (4, 2, 3, 3),
    "conv.bias": (4,),
    "head.weight": (3, 5),
    "head.bias": (3,),
    "scale": (),
}
NAMES = gclip.names()
SAMPLED = [name for name in NAMES if gclip.create(name).side == "sample"]
WHOLE = [name for name in NAMES if name not in SAMPLED]


class Pair:
    """The same runs in a fleet and each by itself, with the same gradients."""

    def __init__(
        self,
        specs: Sequence[Any],
        *,
        lr: Sequence[float] | None = None,
        **how: Any,
    ) -> None:
        chance = torch.Generator().manual_seed(0)
        self.runs = list(range(len(specs)))
        rates = [0.1] * len(specs) if lr is None else list(lr)
        self.lr = torch.tensor(rates)
        start = {n: torch.randn((len(specs), *s), generator=chance) for n, s in SHAPES.items()}
        self.stacks = {n: nn.Parameter(t.clone()) for n, t in start.items()}
        self.params = [{n: nn.Parameter(t[r].clone()) for n, t in start.items()} for r in self.runs]
        self.optimizers = [
            torch.optim.SGD(p.values(), lr=rate) for p, rate in zip(self.params, rates, strict=True)
        ]
        self.clippers = [
            gclip.Clipper(p.items(), spec, optimizer=o, max_consecutive_skips=None, **how)
            for p, spec, o in zip(self.params, specs, self.optimizers, strict=True)
        ]
        self.joint = torch.optim.SGD(self.stacks.values(), lr=rates[0])
        self.fleet = FleetClipper(
            self.stacks,
            specs,
            optimizer=self.joint,
            rates=None if lr is None else self.lr,
            **how,
        )

    def give(self, step: int, *, odd: bool = True) -> None:
        """Gradients of a step: spikes, zeros in run 1 at step 11, NaN in run 2 at step 7."""
        chance = torch.Generator().manual_seed(1000 + step)
        runs = 1 + max(self.runs)
        size = torch.exp(1.5 * torch.randn((runs,), generator=chance)) * (5 if step % 9 == 8 else 1)
        for name, shape in SHAPES.items():
            grad = torch.randn((runs, *shape), generator=chance) * size.view(-1, *[1] * len(shape))
            if odd and runs > 2 and step == 7:
                grad[2].view(-1)[0] = math.nan
            if odd and step == 11:
                grad[1] = 0
            self.stacks[name].grad = grad[self.runs].clone()
            for place, run in enumerate(self.runs):
                self.params[place][name].grad = grad[run].clone()

    def step(self, step: int, *, odd: bool = True) -> None:
        self.give(step, odd=odd)
        together = self.fleet.step()
        for place, clipper in enumerate(self.clippers):
            self.same_report(clipper.step(), together.of(place), f"step {step}, run {place}")
        for name, stack in self.stacks.items():
            for place in range(len(self.runs)):
                alone = self.params[place][name].grad
                close(stack.grad[place], alone, f"step {step}: {name} of run {place}")

    def update(self, step: int) -> None:
        """A plain step of each run, with its own learning rate, and what is made of it."""
        for clipper, optimizer in zip(self.clippers, self.optimizers, strict=True):
            with clipper.updating():
                optimizer.step()
        with self.fleet.updating(), torch.no_grad():
            for stack in self.stacks.values():
                stack.sub_(self.lr.view(-1, *[1] * (stack.ndim - 1)) * stack.grad)
        for name, stack in self.stacks.items():
            for place, params in enumerate(self.params):
                close(stack[place], params[name], f"step {step}: {name} of run {place}")
                with torch.no_grad():  # so that differences do not add up
                    stack[place].copy_(params[name])
        for place, clipper in enumerate(self.clippers):
            self.same_report(clipper.report, self.fleet.report.of(place), f"step {step}")

    def same_report(self, alone: gclip.ClipReport, ours: gclip.ClipReport, where: str) -> None:
        assert bool(alone.finite) == bool(ours.finite), where
        assert bool(alone.skipped) == bool(ours.skipped), where
        assert alone.groups == ours.groups, where
        assert torch.equal(alone.clipped, ours.clipped), where
        for what in ("norm", "limit", "clipped_norm"):
            close(getattr(ours, what), getattr(alone, what), f"{where}: {what}", 2e-6)

    def same_past(self) -> None:
        """Records and memories."""
        states = self.fleet.states()
        for record, clipper, state in zip(self.fleet.records(), self.clippers, states, strict=True):
            wanted = clipper.record.arrays()
            for column, values in record.arrays().items():
                np.testing.assert_allclose(values, wanted[column], rtol=2e-6, err_msg=column)
            want = clipper.state_dict()
            assert state["step"] == want["step"]
            parts = {tuple(part["place"]): part for part in state["parts"]}
            assert len(parts) == len(state["parts"]) == len(want["parts"])
            for alone in want["parts"]:
                ours = parts[tuple(alone["place"])]
                assert {**ours, "memory": None} == {**alone, "memory": None}
                same_memory(ours["memory"], alone["memory"])
            clipper.load_state_dict(state)

    def keep(self, places: list[int]) -> None:
        self.stacks = {n: nn.Parameter(p.detach()[places]) for n, p in self.stacks.items()}
        self.joint = torch.optim.SGD(self.stacks.values(), lr=0.1)
        self.fleet.select_runs(places, self.stacks, self.joint)
        self.lr = self.lr[places]
        self.runs, self.params, self.clippers, self.optimizers = (
            [each[place] for place in places]
            for each in (self.runs, self.params, self.clippers, self.optimizers)
        )


def close(ours: Tensor, alone: Tensor, where: str, near: float = 1e-6) -> None:
    """Within `near` of the largest element; NaN where the other is."""
    ours, alone = ours.detach(), alone.detach()
    top = alone.abs().nan_to_num(0, 0, 0).max() if alone.numel() else torch.zeros(())
    assert torch.allclose(ours, alone, rtol=near, atol=float(top) * near, equal_nan=True), where


def same_memory(ours: Any, alone: Any) -> None:
    assert type(ours) is type(alone)
    if isinstance(ours, dict):
        assert ours.keys() == alone.keys()
        for key in ours:
            if key == "count":  # on the host until some run of the batch has a step to forget
                assert bool((torch.as_tensor(ours[key]) == torch.as_tensor(alone[key])).all())
            elif key == "low" or key == "start":
                continue
            else:
                same_memory(ours[key], alone[key])
    elif isinstance(ours, list):
        for a, b in zip(ours, alone, strict=True):
            same_memory(a, b)
    elif isinstance(ours, Tensor):
        close(ours, alone, "memory", 1e-5)
    else:
        assert ours == alone


def scopes(name: str) -> list[str]:
    """The method's own, and those of the others that are measured in another way."""
    strategy = gclip.create(name)
    others = [s for s in ("global", "unit", "element") if s in type(strategy).scopes]
    return list(dict.fromkeys([strategy.scope, *others]))


CASES = [(name, scope) for name in WHOLE for scope in scopes(name)]


@pytest.mark.parametrize(("name", "scope"), CASES)
def test_every_strategy_equals_one_run_after_another(name: str, scope: str) -> None:
    strategy = gclip.create(name, scope=scope)
    pair = Pair([str(strategy)] * RUNS)
    for step in range(STEPS):
        pair.step(step)
        if pair.fleet.on_updates:
            pair.update(step)
    pair.same_past()


@pytest.mark.parametrize("name", SAMPLED)
def test_single_examples_are_refused(name: str) -> None:
    stacks = {n: nn.Parameter(torch.zeros(2, *s)) for n, s in SHAPES.items()}
    with pytest.raises(UsageError, match="clips single examples"):
        FleetClipper(stacks, ["none", name])


def run(specs: Sequence[Any], steps: int = STEPS, *, odd: bool = True, **how: Any) -> Pair:
    pair = Pair(specs, **how)
    for step in range(steps):
        pair.step(step, odd=odd)
        if pair.fleet.on_updates:
            pair.update(step)
    pair.same_past()
    return pair


def asked(pair: Pair) -> int:
    """How many calls a step makes to strategies, for all runs."""
    return len(pair.fleet._gradient.batches)


def some(field: str, *values: float) -> list[str]:
    return [field.format(value) for value in values]


DIFFERING = {  # how many calls a step makes for all runs
    "norm(max_norm={})": 1,
    "norm(max_norm={}, scope=layer)": 1,
    "value(clip_value={})": 1,
    "agc(clip_factor={})": 1,
    "agc(clip_factor={}, rule=clamp)": 1,
    "zclip(z_threshold={}, scope=tensor, warmup=3)": 1,
    "adagc(absolute={}, warmup=4)": 1,
    "delta(max_norm=0.5, floor={})": 1,
    "norm(max_norm={}, rule=soft)": 1,
    "norm(max_norm={}, rule=skip)": 1,
    "aggc(high={}, low=0.05, scale_up=true)": 1,
    "norm(max_norm={}, rule=normalize, scope=unit)": 1,
    "percentile(p={})": RUNS,  # ranks are counted on the host
    "power(p={})": RUNS,
    "adanorm(decay={})": None,  # some in tensors, some not: only the results matter
    "ema_ratio(decay={})": None,
    "stable_spam(gamma1={})": None,
    "past_quantile(q={})": RUNS,
}


@pytest.mark.parametrize("spelling", DIFFERING)
def test_runs_may_differ_in_numbers(spelling: str) -> None:
    pair = run(some(spelling, 0.1, 0.2, 0.7, 0.45, 0.9))
    assert DIFFERING[spelling] in (None, asked(pair))


def test_equal_settings_among_different_ones_are_asked_together() -> None:
    pair = run(["percentile(p=10)", "percentile(p=50)"] * 2 + ["percentile(p=10)"])
    assert asked(pair) == 2


MIXES = {
    "strategies": ["none", "norm(max_norm=0.5)", "agc", "percentile", "value(clip_value=0.3)"],
    "scopes": [f"norm(max_norm=0.4, scope={s})" for s in ("global", "layer", "tensor", "unit")]
    + ["normalized(scope=unit)"],
    "clamps": [
        "value(clip_value=0.3)",
        "value(lower=-0.1, clip_value=0.5)",
        "norm(max_norm=0.3, rule=clamp, scope=unit)",
        "norm(max_norm=0.2, scope=element)",
        "none",
    ],
    "elements": ["power", "spam", "spectral", "stable_spam", "norm"],
    "skips": ["sigma_skip", "ratio_skip", "norm(rule=skip)", "lognormal_skip", "none"],
    "chains": [
        "chain(value(clip_value=0.3), norm(max_norm=0.5))",
        "chain(norm(max_norm=2), agc)",
        "norm(max_norm=1)",
        "chain(agc, value(clip_value=0.01), zclip(scope=tensor))",
        "chain(norm(max_norm=3, rule=skip), norm(max_norm=1))",
    ],
    "patterns": [
        {"head.*": "norm(max_norm=0.1)", "*": "agc"},
        {"head.*": "norm(max_norm=0.3)", "*": "agc"},
        {"conv.*": "chain(value, percentile)", "*": "none"},
        "norm(max_norm=0.5, scope=layer)",
        {"*.bias": "norm(rule=skip, max_norm=2)", "*": "norm(max_norm=0.2, scope=layer)"},
    ],
    "schedules": [
        "norm(max_norm=linear(1, 0.1))",
        "norm(max_norm=cosine(2, 0.1))",
        "norm(max_norm=0.4)",
        "percentile(p=linear(10, 90))",
        "norm(max_norm=linear(1, 0.1))",
    ],
    "warm-ups and floors": [
        "norm(max_norm=0.1, warmup=5)",
        "norm(max_norm=0.1, warmup=5, floor=0.2)",
        "norm(max_norm=0.1, floor=0.5)",
        "zclip(warmup=4)",
        "ema_ratio(warmup=9)",
    ],
    "updates": ["clippy", "none", "update_rms(max_rms=0.5)", "norm(side=update)", "agc"],
    "updates and gradients": [
        "chain(norm(max_norm=1), clippy)",
        "chain(agc, norm(max_norm=0.01, side=update), value(clip_value=0.001, side=update))",
        "acclip",
        {"head.*": "clippy", "*": "norm(max_norm=0.5)"},
        "larc",
    ],
}


@pytest.mark.parametrize("mix", MIXES)
def test_strategies_may_be_mixed(mix: str) -> None:
    run(MIXES[mix], total_steps=STEPS, lr=[0.1, 0.02, 0.3, 0.05, 0.01])


@pytest.mark.parametrize("mix", ["strategies", "clamps", "chains", "skips", "scopes"])
def test_what_is_not_finite_can_be_kept(mix: str) -> None:
    run(MIXES[mix], 12, nonfinite="keep", lr=[0.1] * RUNS)


def test_gradients_that_are_not_finite_can_be_refused() -> None:
    pair = Pair(["norm"] * RUNS, nonfinite="raise")
    pair.give(7)
    with pytest.raises(NotFinite, match="runs 2 are not finite at step 0: conv.weight, ") as caught:
        pair.fleet.step()
    assert caught.value.runs == (2,)
    assert math.isnan(pair.stacks["scale"].grad[2])


def test_large_norms_are_measured_again_in_float64() -> None:
    pair = Pair(["norm", "agc", "norm(scope=layer)"])
    pair.give(0)
    for name in SHAPES:
        pair.stacks[name].grad[1] *= 1e25
        pair.stacks[name].grad[2] *= 1e25
        for run_ in (1, 2):
            pair.params[run_][name].grad *= 1e25
    ours = pair.fleet.step()
    assert bool(ours.finite.all())
    for place, clipper in enumerate(pair.clippers):
        pair.same_report(clipper.step(), ours.of(place), f"run {place}")


@pytest.mark.parametrize("mix", [*MIXES, "differing"])
def test_runs_may_leave(mix: str) -> None:
    specs = MIXES.get(mix) or some("zclip(z_threshold={}, warmup=3)", 1, 2, 3, 1.5, 2.5)
    pair = Pair(specs, total_steps=STEPS, lr=[0.1, 0.02, 0.3, 0.05, 0.01])
    for step in range(STEPS):
        pair.step(step)
        if pair.fleet.on_updates:
            pair.update(step)
        elif any(clipper.on_updates for clipper in pair.clippers):
            raise AssertionError("the update side is lost")
        if step == 10:
            pair.keep([0, 2, 3, 4])
        if step == 20:
            pair.keep([3, 1])
    pair.same_past()


def test_missing_gradients_are_as_in_one_run() -> None:
    pair = Pair(["agc", "norm(scope=tensor, max_norm=0.1)", "percentile(scope=layer)"])
    for step in range(8):
        pair.give(step)
        if step < 4:
            for params in [pair.stacks, *pair.params]:
                params["conv.bias"].grad = params["scale"].grad = None
        ours = pair.fleet.step()
        for place, clipper in enumerate(pair.clippers):
            pair.same_report(clipper.step(), ours.of(place), f"step {step}, run {place}")
    pair.same_past()


def test_without_any_gradient_nothing_happens() -> None:
    pair = Pair(["norm"])
    with pytest.warns(UserWarning, match="no parameter has a gradient"):
        report = pair.fleet.step()
    assert bool(report.finite.all())
    assert not bool(report.skipped.any())


def test_within_the_limit_every_bit_stays() -> None:
    pair = Pair(["norm(max_norm=1e6)", "agc(clip_factor=1e6)", "value(clip_value=1e6)", "norm"])
    pair.give(0)
    before = {n: p.grad.clone() for n, p in pair.stacks.items()}
    pair.fleet.step()
    for name, stack in pair.stacks.items():
        assert torch.equal(stack.grad[:3], before[name][:3])
    few = {n: nn.Parameter(p[:3].detach()) for n, p in pair.stacks.items()}
    pair.fleet.select_runs([0, 1, 2], few)
    for name, stack in few.items():
        stack.grad = before[name][:3].clone()
    pair.fleet.step()
    assert all(stack.grad._version == 0 for stack in few.values())  # never written to


def test_the_reports_columns_are_the_records() -> None:
    pair = run(["norm(max_norm=0.5)", "agc", "value"], 3, odd=False)
    report = pair.fleet.report
    for run_, record in enumerate(pair.fleet.records()):
        last = {column: values[-1] for column, values in record.arrays().items()}
        for column in ("norm", "clipped_norm", "limit", "clipped"):
            got = getattr(report, column)[run_].item()
            assert got == pytest.approx(last[column], rel=1e-6, nan_ok=True)
    assert "3 runs" in repr(report)


def test_a_strategy_that_cannot_be_batched_is_asked_run_by_run() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Careless(gclip.Strategy):
        """A limit from the first group alone, wherever that stands."""

        share: float = gclip.tunable(0.1, low=0.01, high=1.0, doc="of the first norm")
        scope: gclip.Scope = "tensor"

        def limit(self, seen: Any, memory: Any) -> Any:
            return self.share * seen.norm.flatten()[0]

    for specs in ([Careless()] * 3, [Careless(share=0.1 * n) for n in (1, 2, 3)]):
        assert [vectorized.unbatched for _, vectorized in group_vectorizable(specs, None)] == [
            True
        ] * 3
        run(specs, 10)


def test_bad_input_is_refused() -> None:
    stacks = {"w": nn.Parameter(torch.zeros(2, 3))}
    with pytest.raises(UsageError, match="does not have the fleet's 3 runs"):
        FleetClipper(stacks, ["norm"] * 3)
    with pytest.raises(UsageError, match=r"one learning rate a run, \(2,\), but .* \(3,\)"):
        FleetClipper(stacks, ["norm"] * 2, rates=torch.ones(3))
    fleet = FleetClipper(stacks, ["norm"] * 2)
    with pytest.raises(UsageError, match="each once"):
        fleet.select_runs([0, 0], stacks)
    with pytest.raises(UsageError, match="same parameters"):
        fleet.select_runs([0, 1], {"v": nn.Parameter(torch.zeros(2, 3))})
    stacks["w"].grad = torch.ones(2, 3)
    late = FleetClipper(stacks, ["clippy"] * 2)
    late.step()
    with pytest.raises(UsageError, match="last update was not clipped"):
        late.step()


@pytest.mark.parametrize("mix", [m for m in MIXES if m not in ("elements",)])
def test_nothing_waits_for_a_gpu(mix: str) -> None:
    specs = MIXES[mix]
    how = {"total_steps": STEPS, "rates": torch.full((RUNS,), 0.1)}
    stacks = {n: nn.Parameter(torch.zeros(RUNS, *s)) for n, s in SHAPES.items()}
    FleetClipper(stacks, specs, **how)  # tries what can be asked together, on real numbers
    with FakeTensorMode():
        stacks = {n: nn.Parameter(torch.randn(RUNS, *s, device="cuda")) for n, s in SHAPES.items()}
        how["rates"] = torch.full((RUNS,), 0.1, device="cuda")
        optimizer = torch.optim.SGD(stacks.values(), lr=0.1)
        fleet = FleetClipper(stacks, specs, optimizer=optimizer, **how)
        for step in range(4):
            for stack in stacks.values():
                stack.grad = torch.randn_like(stack)
            with _Moves() if step and mix != "schedules" else contextlib.nullcontext():
                fleet.step()
                if fleet.on_updates:
                    with fleet.updating():
                        optimizer.step()
