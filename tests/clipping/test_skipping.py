"""A step that is to be left out is left out, whatever way the optimizer is called."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import nn

import gclip

NOT_FINITE = ("norm(max_norm=1)", math.nan)
BY_RULE = ("norm(max_norm=10, rule=skip)", 1000.0)
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}
FUSED = {
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "fused adam": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, fused=True),
}


class Loop:
    """Two weights whose gradient is whatever a step is told."""

    def __init__(self, optimizer: str, spec: str) -> None:
        self.weights = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.optimizer = {**OPTIMIZERS, **FUSED}[optimizer]([self.weights])
        self.handle = gclip.attach(self.optimizer, spec)

    def backward(self, scale: float) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = (self.weights.square().sum() + self.weights.sum()) * scale
        loss.backward()
        return loss

    def state(self) -> list[object]:
        return [self.weights.detach().clone(), copy.deepcopy(self.optimizer.state[self.weights])]

    def assert_same(self, before: list[object]) -> None:
        assert torch.equal(self.weights, before[0])
        now = self.optimizer.state[self.weights]
        assert now.keys() == before[1].keys()
        for name, value in before[1].items():
            same = (
                torch.equal if isinstance(value, torch.Tensor) else lambda a, b: repr(a) == repr(b)
            )
            assert same(now[name], value), name


@pytest.mark.parametrize(("spec", "scale"), [NOT_FINITE, BY_RULE])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_closure(optimizer, spec, scale):
    loop = Loop(optimizer, spec)
    loop.optimizer.step(lambda: loop.backward(0.1))
    before = loop.state()
    loss = loop.optimizer.step(closure=lambda: loop.backward(scale))
    loop.assert_same(before)
    assert loop.handle.report.skipped
    assert float(loss.detach()) == pytest.approx(float(loop.backward(scale).detach()), nan_ok=True)
    loop.optimizer.step(lambda: loop.backward(0.1))
    assert not torch.equal(loop.weights, before[0])


@pytest.mark.parametrize(("spec", "scale"), [NOT_FINITE, BY_RULE])
def test_gradients_that_turn_bad_in_the_middle_of_a_line_search(spec, scale):
    loop = Loop("lbfgs", spec)
    before = loop.state()
    scales = iter([0.1, scale, 0.1])
    loop.optimizer.step(lambda: loop.backward(next(scales)))
    loop.assert_same(before)


def test_an_optimizer_that_moves_the_weights_before_it_asks():
    class Ascending(torch.optim.SGD):
        """Sharpness-aware: the gradient is taken at a point nearby."""

        def step(self, closure=None):
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.add_(0.5)
            closure()
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.sub_(0.5)
            return super().step()

    weights = nn.Parameter(torch.zeros(2))
    optimizer = Ascending([weights], lr=1.0)
    gclip.attach(optimizer, "norm(max_norm=1)")
    for step in range(3):
        bad = step == 1

        def closure(bad=bad):
            optimizer.zero_grad()
            loss = (weights * (math.inf if bad else 1.0)).sum()
            loss.backward()
            return loss

        before = weights.detach().clone()
        optimizer.step(closure)
        assert torch.equal(before, weights) == bad


@pytest.mark.parametrize(("spec", "scale"), [NOT_FINITE, BY_RULE])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adagrad"])
def test_a_scaler_and_a_plain_loop(optimizer, spec, scale):
    scaled, plain = Loop(optimizer, spec), Loop(optimizer, spec)
    plain.handle.remove()
    clipper = gclip.Clipper([plain.weights], spec)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step, size in enumerate((0.1, scale, 0.1)):
        before = scaled.state(), plain.state()
        scaled.optimizer.zero_grad()
        loss = (scaled.weights.square().sum() + scaled.weights.sum()) * size
        scaler.scale(loss).backward()
        scaler.step(scaled.optimizer)
        scaler.update()
        plain.backward(size)
        if not clipper.step().skipped:
            plain.optimizer.step()
        for loop, was in zip((scaled, plain), before, strict=True):
            if step == 1:
                loop.assert_same(was)
            else:
                assert not torch.equal(loop.weights, was[0])
        torch.testing.assert_close(scaled.weights, plain.weights)


@pytest.mark.parametrize(("spec", "scale"), [NOT_FINITE, BY_RULE])
@pytest.mark.parametrize("optimizer", FUSED)
def test_a_fused_optimizer_leaves_the_step_out_by_itself(optimizer, spec, scale, monkeypatch):
    """What a GPU does, on a CPU, whose fused optimizers know ``found_inf`` as well."""
    monkeypatch.setattr("gclip.clipping.clip_handle.fused_on_gpu", lambda _: True)
    loop, alone = Loop(optimizer, spec), Loop(optimizer, "none")
    for size in (0.1, scale, 0.1, scale, 0.1):
        loop.backward(size)
        loop.optimizer.step()
        assert bool(loop.handle.report.skipped) == (size != 0.1)
        if size == 0.1:
            alone.backward(size)
            alone.optimizer.step()
        loop.assert_same(alone.state())
    assert not hasattr(loop.optimizer, "found_inf")


@pytest.mark.parametrize("strategy", ["norm(max_norm=1, side=update)", "clippy"])
def test_a_loop_that_leaves_the_update_out(strategy):
    weights = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weights], lr=0.1)
    clipper = gclip.Clipper([("w", weights)], strategy, optimizer=optimizer)
    for scale in (1.0, math.nan, 1.0):
        optimizer.zero_grad()
        (weights * scale).sum().backward()
        if not clipper.step().skipped:
            with clipper.updating():
                optimizer.step()
    assert int(optimizer.state[weights]["step"]) == 2
    assert clipper.record.arrays()["skipped"].tolist() == [0, 1, 0]
    weights.grad = torch.ones(2)
    with pytest.raises(ValueError, match="the last update was not clipped"):
        clipper.step(), clipper.step()


class TestArguments:
    """``step`` may have more arguments than a closure."""

    class Scaled(torch.optim.SGD):
        def step(self, scale=1.0, closure=None, *, sign=1.0):
            loss = None if closure is None else closure()
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.add_(p.grad, alpha=-scale * sign)
            return loss

    def loop(self):
        weights = nn.Parameter(torch.zeros(2))
        optimizer = self.Scaled([weights], lr=1.0)
        gclip.attach(optimizer, "norm(max_norm=1)")
        weights.grad = torch.tensor([3.0, 4.0])
        return weights, optimizer

    def test_they_are_passed_on(self):
        weights, optimizer = self.loop()
        optimizer.step(2.0, sign=-1.0)
        torch.testing.assert_close(weights.detach(), torch.tensor([1.2, 1.6]))

    @pytest.mark.parametrize("named", [False, True])
    def test_with_a_closure_where_the_step_takes_it(self, named):
        weights, optimizer = self.loop()

        def closure():
            weights.grad = torch.tensor([3.0, 4.0])
            return torch.tensor(7.0)

        loss = optimizer.step(2.0, closure=closure) if named else optimizer.step(2.0, closure)
        torch.testing.assert_close(weights.detach(), torch.tensor([-1.2, -1.6]))
        assert loss == 7.0


class TestInARow:
    def run(self, count, **settings):
        weights = nn.Parameter(torch.ones(2))
        clipper = gclip.Clipper([weights], "norm", **settings)
        for step in range(count):
            weights.grad = torch.tensor([1.0, math.nan])
            clipper.step()
            yield step

    def test_a_warning_after_twenty(self):
        *_, _ = self.run(19)
        with pytest.warns(UserWarning, match="20 steps in a row were skipped"):
            *_, _ = self.run(20)

    def test_as_many_as_one_wishes_raising(self):
        done = []
        with pytest.raises(FloatingPointError, match="3 steps in a row"):
            done.extend(self.run(5, max_consecutive_skips=3, on_max_skips="raise"))
        *_, _ = self.run(30, max_consecutive_skips=None)

    def test_a_step_in_between_starts_anew(self):
        weights = nn.Parameter(torch.ones(2))
        clipper = gclip.Clipper([weights], "norm", max_consecutive_skips=3)
        for step in range(9):
            weights.grad = torch.tensor([1.0, math.nan if step % 3 else 0.0])
            clipper.step()
        assert clipper.record.summary().skipped == 6

    def test_without_looking_at_the_values_of_a_device(self, monkeypatch):
        monkeypatch.setattr("gclip.clipping.skip_monitor.on_host", lambda _: False)
        with pytest.warns(UserWarning, match="in a row were skipped"):
            *_, _ = self.run(64)

    @pytest.mark.parametrize("wrong", [0, -1, 2.5, True])
    def test_wrong_numbers(self, wrong):
        with pytest.raises(ValueError, match="max_consecutive_skips must be a whole number"):
            gclip.Clipper([nn.Parameter(torch.ones(1))], "norm", max_consecutive_skips=wrong)

    def test_a_wrong_word(self):
        with pytest.raises(ValueError, match="warn"):
            gclip.Clipper([nn.Parameter(torch.ones(1))], "norm", on_max_skips="rise")


def test_a_run_that_is_mostly_skipped_says_so():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e6)
    handle = gclip.attach(optimizer, "none", max_consecutive_skips=None)
    for _ in range(100):
        optimizer.zero_grad()
        (model(torch.full((4, 1), 3.0)) - 1).pow(2).mean().backward()
        optimizer.step()
    summary = handle.record.summary()
    assert summary.verdict == "mostly skipped"
    assert summary.skipped == summary.not_finite > 90
    assert str(summary).startswith(f"mostly skipped: of 100 steps {summary.skipped} skipped")


def test_kept_steps_that_are_mostly_not_finite_say_so():
    weights = nn.Parameter(torch.ones(2))
    clipper = gclip.Clipper([weights], "norm", nonfinite="keep")
    for _ in range(4):
        weights.grad = torch.tensor([math.nan, 1.0])
        clipper.step()
    summary = clipper.record.summary()
    assert (summary.verdict, summary.skipped, summary.not_finite) == ("mostly not finite", 0, 4)


def test_skips_by_rule_are_counted_as_skips():
    weights = nn.Parameter(torch.ones(2))
    clipper = gclip.Clipper([weights], "norm(max_norm=1, rule=skip)")
    for size in (0.5, 2.0, 3.0, 4.0):
        weights.grad = torch.tensor([size, 0.0])
        clipper.step()
    summary = clipper.record.summary()
    assert (summary.verdict, summary.skipped, summary.not_finite) == ("mostly skipped", 3, 0)
    assert clipper.record.arrays()["skipped"].tolist() == [0, 1, 1, 1]


def test_records_saved_before_skips_were_noted():
    record = gclip.Record()
    record.load_state_dict({"rows": torch.tensor([[2.0, 1.0, 1.0, 1.0, 1.0], [9.0, 9, 1, 0, 0]])})
    assert record.arrays()["skipped"].tolist() == [0, 1]
    assert record.summary().skipped == 1


def test_no_false_warning_of_a_scheduler():
    for before in (True, False):
        for bad in (True, False):
            weights = nn.Parameter(torch.ones(2))
            optimizer = torch.optim.SGD([weights], lr=0.1)
            if before:
                scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
            gclip.attach(optimizer, "norm")
            if not before:
                scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
            weights.grad = torch.tensor([1.0, math.nan if bad else 1.0])
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                optimizer.step()
                scheduler.step()
            assert torch.equal(weights, torch.ones(2)) == bad


@pytest.mark.parametrize("fold", [False, True])
def test_a_first_step_that_is_skipped_leaves_no_momentum(fold):
    def loop(first: list[float], **settings: bool) -> nn.Parameter:
        weights = nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9, **settings)
        gclip.attach(optimizer, "norm(max_norm=1)", fold=fold and settings["fused"])
        for size in (*first, 1.0, 2.0):
            weights.grad = torch.full((3,), size)
            optimizer.step()
        return weights

    torch.testing.assert_close(loop([math.nan, math.inf], fused=True), loop([], fused=False))
