"""Parameters that come later are clipped like the others, and nothing is clipped that has gone."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import gclip

LATE = (
    "norm(max_norm=0.1)",
    "norm(max_norm=0.1, scope=tensor)",
    "norm(max_norm=0.1, scope=layer)",
    "agc(clip_factor=0.01)",
    "value(clip_value=0.01)",
    "percentile(p=50, scope=tensor)",
    "zclip(max_norm=0.1, scope=unit)",
    "chain(value(clip_value=0.5), norm(max_norm=0.1))",
    "norm(max_norm=0.1, side=update)",
    "spam(warmup=0)",
)


def linear(seed: int, *sizes: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(*sizes)


def fill(model: nn.Module, seed: int, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in model.parameters():
        param.grad = torch.randn(param.shape, generator=generator) * size


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters()]


def norm_of(model: nn.Module) -> float:
    return float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())


@pytest.mark.parametrize("spec", LATE)
def test_an_added_group_is_clipped_as_if_it_had_been_there(spec):
    """From the first step on, so that the past of both is the same."""

    def loop(late: bool):
        model = nn.ModuleDict({"a": linear(0, 3, 2), "b": linear(1, 2, 4)})
        params = [*model["a"].parameters()] if late else [*model.parameters()]
        optimizer = torch.optim.SGD(params, lr=0.5)
        handle = gclip.attach(optimizer, spec, model=model)
        if late:
            optimizer.add_param_group({"params": model["b"].parameters()})
        for step in range(4):
            fill(model, step)
            optimizer.step()
        return model, handle

    (ours, first), (wanted, second) = loop(True), loop(False)
    for a, b in zip(ours.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=0)
    for column, values in first.record.arrays().items():
        torch.testing.assert_close(
            torch.tensor(values), torch.tensor(second.record.arrays()[column]), equal_nan=True
        )


def test_a_group_added_in_the_middle_of_training():
    first, second = linear(0, 3, 1), linear(1, 3, 1)
    optimizer = torch.optim.SGD(first.parameters(), lr=0.1)
    handle = gclip.attach(optimizer, "norm(max_norm=0.1)")
    fill(first, 0)
    optimizer.step()
    optimizer.add_param_group({"params": second.parameters()})
    both = nn.ModuleList([first, second])
    fill(both, 1, 10.0)
    whole = norm_of(both)
    optimizer.step()
    assert float(handle.report.norm) == pytest.approx(whole, rel=1e-6)
    assert norm_of(both) == pytest.approx(0.1, rel=1e-5)
    assert len(handle.record) == 2


def test_each_group_keeps_its_own_past():
    """A group that comes late has no past: its first norm sets its own limit, nobody else's."""
    model = nn.ParameterDict({"a": nn.Parameter(torch.ones(1))})
    clipper = gclip.Clipper(model, "past_quantile(q=0.5, scope=tensor)")
    for norm in (1.0, 2.0, 3.0):
        model["a"].grad = torch.tensor([norm])
        clipper.step()
    model["b"] = nn.Parameter(torch.ones(1))
    for norm, limits in ((100.0, [2.0, torch.inf]), (50.0, [2.0, 100.0])):
        model["a"].grad, model["b"].grad = torch.tensor([2.0]), torch.tensor([norm])
        report = clipper.step()
        assert report.groups == ("a", "b")
        assert report.limit.tolist() == limits
    state = clipper.state_dict()
    again = gclip.Clipper(model, "past_quantile(q=0.5, scope=tensor)")
    again.load_state_dict(state)
    model["a"].grad, model["b"].grad = torch.tensor([9.0]), torch.tensor([60.0])
    assert again.step().limit.tolist() == [2.0, 75.0]


@pytest.mark.parametrize("spec", LATE[:8])
def test_a_replaced_head(spec):
    def model() -> nn.Sequential:
        return nn.Sequential(linear(0, 2, 2), linear(1, 2, 2))

    ours, wanted = model(), model()
    clipper = gclip.Clipper(ours, spec)
    ours[1], wanted[1] = linear(2, 2, 3), linear(2, 2, 3)
    clipped = gclip.Clipper(wanted, spec)
    for step in range(3):
        fill(ours, step, 100.0), fill(wanted, step, 100.0)
        report, other = clipper.step(), clipped.step()
        assert report.groups == other.groups
        for a, b in zip(gradients(ours), gradients(wanted), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


def test_layers_that_come_and_go():
    model = nn.Sequential(linear(0, 2, 2), linear(1, 2, 2))
    clipper = gclip.Clipper(model, "norm(max_norm=1, scope=tensor)")
    changes = (
        lambda: model.append(linear(2, 2, 2)),
        lambda: model.__delitem__(0),
        lambda: setattr(model[0], "bias", None),
        lambda: model[1].register_parameter("bias", nn.Parameter(torch.ones(2))),
        lambda: nn.utils.parametrizations.weight_norm(model[1]),
    )
    for change in changes:
        change()
        fill(model, 0, 100.0)
        report = clipper.step()
        assert len(report.groups) == len(list(model.parameters()))
        assert all(float(p.grad.norm()) == pytest.approx(1) for p in model.parameters())


def test_a_part_without_a_pattern_is_refused_by_name():
    model = nn.ModuleDict({"embed": linear(0, 2, 2)})
    clipper = gclip.Clipper(model, {"embed.*": "agc"})
    model["head"] = linear(1, 2, 2)
    fill(model, 0)
    with pytest.raises(ValueError, match=r"no pattern matches the parameter 'head.weight'"):
        clipper.step()


def test_a_pattern_whose_layer_has_gone_is_no_mistake():
    model = nn.ModuleDict({"body": linear(0, 2, 2), "head": linear(1, 2, 2)})
    clipper = gclip.Clipper(model, "norm(max_norm=1)", exclude=["head.*"])
    del model["head"]
    fill(model, 0, 10.0)
    clipper.step()
    assert norm_of(model) == pytest.approx(1)


def test_a_list_of_parameters_says_that_it_may_be_old():
    model = nn.Sequential(linear(0, 2, 2))
    clipper = gclip.Clipper(model.named_parameters(), "norm")
    model[0] = linear(1, 2, 2)
    fill(model, 0)
    with pytest.warns(UserWarning, match="pass the model itself, which is followed"):
        clipper.step()


def test_a_replaced_head_whose_examples_are_clipped():
    def loop(model: nn.Sequential, replace: bool) -> nn.Sequential:
        clipper = gclip.Clipper(model, "norm(max_norm=0.1, side=sample)") if replace else None
        model[1] = linear(2, 2, 3)
        clipper = clipper or gclip.Clipper(model, "norm(max_norm=0.1, side=sample)")
        clipper.backward(torch.ones(4, 2), torch.tensor([0, 1, 2, 1]))
        clipper.step()
        return model

    ours, wanted = (
        loop(nn.Sequential(linear(0, 2, 2), linear(1, 2, 2)), replace) for replace in (True, False)
    )
    for a, b in zip(gradients(ours), gradients(wanted), strict=True):
        assert torch.equal(a, b)


def test_folding_follows_too():
    def loop(fold: bool):
        a, b = linear(0, 3, 2), linear(1, 3, 2)
        optimizer = torch.optim.SGD(a.parameters(), lr=0.5, fused=True)
        gclip.attach(optimizer, "norm(max_norm=0.1)", fold=fold)
        optimizer.add_param_group({"params": b.parameters()})
        both = nn.ModuleList([a, b])
        fill(both, 0, 10.0)
        optimizer.step()
        return both

    for a, b in zip(loop(True).parameters(), loop(False).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


class TestNames:
    def test_patterns_mean_the_same_under_wrappers(self):
        net = nn.Sequential(linear(0, 2, 2), linear(1, 2, 2))
        inner = nn.Sequential(net[0], torch.compile(net[1]))
        for model in (
            torch.compile(net),
            nn.DataParallel(net),
            torch.compile(nn.DataParallel(net)),
            inner,
        ):
            fill(net, 0, 10.0)
            report = gclip.Clipper(
                model, "norm(max_norm=1, scope=tensor)", exclude=["1.weight"]
            ).step()
            assert report.groups == ("all", "0.weight", "0.bias", "1.bias")  # the excluded first
            assert float(net[1].weight.grad.norm()) > 2
            assert float(net[0].weight.grad.norm()) == pytest.approx(1)

    def test_patterns_may_be_written_as_the_wrapper_shows_them(self):
        net = nn.Sequential(linear(0, 2, 2))
        fill(net, 0, 10.0)
        gclip.Clipper(torch.compile(net), "norm", exclude=["_orig_mod.0.*"]).step()
        assert norm_of(net) > 2

    def test_names_that_would_fall_together_stay(self):
        model = nn.ModuleDict({"module": nn.ModuleDict({"a": linear(0, 2, 2)})})
        assert gclip.Clipper(model, "norm(scope=tensor)").names == ("a.weight", "a.bias")
        model["a"] = linear(0, 2, 2)
        assert gclip.Clipper(model, "norm").names[0] == "module.a.weight"


def test_a_lazy_module_is_refused_until_it_has_a_shape():
    model = nn.Sequential(nn.LazyLinear(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match=r"0.weight, 0.bias of a lazy module has no shape yet"):
        gclip.Clipper(model, "norm")
    with pytest.raises(ValueError, match="pass one batch through the model"):
        gclip.attach(optimizer, "norm")
    model(torch.ones(1, 2)).sum().backward()
    assert gclip.Clipper(model, "norm(max_norm=0.1)").step().clipped


class Wrapping(torch.optim.Optimizer):
    """An optimizer around another, as Accelerate's: it steps at every second call."""

    def __init__(self, optimizer: torch.optim.Optimizer, name: str) -> None:
        setattr(self, name, optimizer)
        self.inner, self.calls = optimizer, 0

    @property
    def param_groups(self):
        return self.inner.param_groups

    def step(self, closure=None):
        self.calls += 1
        if self.calls % 2 == 0:
            self.inner.step()


class TestWrappers:
    @pytest.mark.parametrize("name", ["optimizer", "original_optimizer"])
    def test_the_innermost_is_clipped_once_a_real_step(self, name):
        weights = nn.Parameter(torch.zeros(2))
        inner = torch.optim.SGD([weights], lr=1.0)
        outer = Wrapping(Wrapping(inner, name), "optimizer")
        handle = gclip.attach(outer, "norm(max_norm=1)")
        assert handle.optimizer is inner
        weights.grad = torch.zeros(2)
        for _ in range(4):
            weights.grad += torch.tensor([3.0, 4.0])
            outer.step()
        assert len(handle.record) == 1
        assert handle.report.norm.item() == pytest.approx(20)
        torch.testing.assert_close(weights.detach(), torch.tensor([-0.6, -0.8]))
        with pytest.raises(ValueError, match="clipped already"):
            gclip.attach(inner, "norm")

    def test_a_step_kept_from_before_is_refused(self):
        weights = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([weights], lr=1.0)
        kept = optimizer.step
        handle = gclip.attach(optimizer, "norm(max_norm=1)")
        weights.grad = torch.tensor([3.0, 4.0])
        with pytest.raises(ValueError, match="called past gclip.attach"):
            kept()
        assert torch.equal(weights, torch.zeros(2))
        handle.remove()
        kept()
        assert torch.equal(weights, -weights.grad)

    def test_copies_say_that_they_are_not_clipped(self):
        weights = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([weights], lr=1.0)
        handle = gclip.attach(optimizer, "norm(max_norm=1)")
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.warns(UserWarning, match="gclip does not clip"):
                copied(optimizer)
        optimizer.state_dict()  # is no copy of the optimizer
        handle.remove()
        copy.deepcopy(optimizer)


def test_a_refused_step_leaves_the_optimizer_as_it_was():
    weights = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weights], lr=1.0, momentum=0.9, fused=True)
    for fold in (False, True):
        with gclip.attach(optimizer, "norm", nonfinite="raise", fold=fold):
            weights.grad = torch.tensor([torch.nan, 1.0])
            with pytest.raises(FloatingPointError, match="not finite"):
                optimizer.step()
            weights.grad = torch.tensor([3.0, 4.0])
            optimizer.step()
        assert not hasattr(optimizer, "found_inf")
        assert not hasattr(optimizer, "grad_scale")
    before = dict(vars(optimizer))
    with pytest.raises(ValueError, match="fold=True needs one limit"):
        gclip.attach(optimizer, "agc", fold=True)
    assert vars(optimizer) == before


@pytest.mark.parametrize("sizes", [(2, 2), (2, 3)])
def test_a_survey_does_not_go_on_with_another_model(sizes):
    model = nn.Sequential(linear(0, 2, 2), linear(1, 2, 2))
    survey = gclip.Survey(model)
    fill(model, 0)
    survey.watch()
    model[1] = linear(2, *sizes)
    fill(model, 1)
    with pytest.raises(ValueError, match=r"other parameters .* \(1.weight and 1 more\)"):
        survey.watch()
    model.pop(1)
    with pytest.raises(ValueError, match="begin another survey"):
        survey.watch()
