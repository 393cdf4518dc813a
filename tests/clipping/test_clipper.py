"""What the clipper promises whatever the strategy, and defects of other code it must not have."""

from __future__ import annotations

import math

import pytest
import torch

import gclip

ALL = (
    "none",
    "norm(max_norm=0.5)",
    "norm(max_norm=0.5, scope=unit)",
    "norm(max_norm=0.5, scope=layer)",
    "norm(max_norm=0.5, scope=tensor)",
    "value(clip_value=0.2)",
    "percentile",
    "percentile(window=4)",
    "percentile(scope=unit)",
    "agc(clip_factor=0.05)",
    "agc(clip_factor=0.05, scope=layer)",
    "chain(value(clip_value=0.5), percentile)",
)


@pytest.fixture(params=ALL)
def spec(request):
    return request.param


def equal(params, grads):
    return all(torch.equal(params[n].grad, grads[n]) for n in params)


class TestWithinTheLimit:
    def test_unchanged_bit_for_bit(self, parameters, fill):
        params = parameters()
        grads = fill(params, 0)
        norms = ("norm(max_norm=1e6)", "norm(max_norm=inf)", "percentile(p=100)")
        others = ("value(clip_value=100)", "value(clip_value=inf)", "agc(clip_factor=1e6)")
        for loose in norms + others:
            report = gclip.Clipper(params.items(), loose).step()
            assert equal(params, grads), loose
            assert not report.clipped.any()

    def test_a_norm_exactly_at_the_limit_is_left_alone(self):
        # torch turns 3 into 2.9999993
        w = torch.nn.Parameter(torch.zeros(()))
        w.grad = torch.tensor(3.0)
        report = gclip.Clipper([w], "norm(max_norm=3)").step()
        assert w.grad.item() == 3.0
        assert not report.clipped.any()

    @pytest.mark.parametrize("limit", torch.logspace(-6, 4, 50).tolist())
    def test_the_limit_holds_and_clipping_twice_is_clipping_once(self, limit, parameters, fill):
        for scope in ("global", "layer", "tensor", "unit", "element"):
            params = parameters()
            fill(params, 7)
            strategy = gclip.create("norm", max_norm=limit, scope=scope)
            report = gclip.Clipper(params.items(), strategy).step()
            again = gclip.Clipper(params.items(), strategy).step()
            assert (again.norm <= limit * (1 + 2e-6)).all(), scope
            torch.testing.assert_close(again.norm, report.clipped_norm, rtol=3e-6, atol=1e-12)


class TestZeroAndNone:
    def test_zero_gradients_stay_zero(self, spec, parameters, fill):
        params = parameters()
        clipper = gclip.Clipper(params.items(), spec)
        for step in range(3):
            fill(params, step, 0.0)
            report = clipper.step()
            assert report.finite
            assert all(not p.grad.any() for p in params.values())

    def test_a_limit_of_zero_gives_zero_gradients(self, parameters, fill):
        for zero in ("norm(max_norm=0)", "value(clip_value=0)", "agc(clip_factor=0)"):
            params = parameters()
            fill(params, 0)
            gclip.Clipper(params.items(), zero).step()
            assert all(not p.grad.any() for p in params.values()), zero

    def test_a_missing_gradient_counts_as_nothing(self, spec, parameters, fill):
        params, alone = parameters(), parameters()
        fill(params, 1), fill(alone, 1)
        params["mix.weight"].grad = None
        del alone["mix.weight"]
        gclip.Clipper(params.items(), spec).step()
        gclip.Clipper(alone.items(), spec).step()
        assert params["mix.weight"].grad is None
        assert all(torch.equal(params[n].grad, alone[n].grad) for n in alone)

    def test_memory_of_a_group_starts_with_its_first_gradient(self, parameters, fill):
        late, always = parameters(), parameters()
        clip_late = gclip.Clipper(late.items(), "percentile(p=50, scope=tensor)")
        for step in range(4):
            fill(late, step)
            if step < 2:
                late["mix.weight"].grad = None
            clip_late.step()
        clip_fresh = gclip.Clipper(always.items(), "percentile(p=50, scope=tensor)")
        for step in (2, 3):
            fill(always, step)
            clip_fresh.step()
        assert torch.equal(late["mix.weight"].grad, always["mix.weight"].grad)

    def test_no_gradient_at_all_warns_once(self, parameters):
        clipper = gclip.Clipper(parameters().items(), "norm")
        with pytest.warns(UserWarning, match="after backward"):
            clipper.step()
        clipper.step()  # a second warning would be an error here

    def test_empty_parameters(self, spec):
        params = {"a.weight": torch.nn.Parameter(torch.zeros(0, 3)),
                  "b.weight": torch.nn.Parameter(torch.ones(2, 2))}  # fmt: skip
        for p in params.values():
            p.grad = torch.ones_like(p)
        assert gclip.Clipper(params.items(), spec).step().finite


class TestNotFinite:
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_skip_zeroes_the_step_and_never_poisons_memory(self, bad, spec, parameters, fill):
        # One NaN switched AutoClip, ZClip and others off for ever.
        params, clean = parameters(), parameters()
        clipper, other = (gclip.Clipper(p.items(), spec) for p in (params, clean))
        for step in range(12):
            fill(params, step), fill(clean, step)
            if step % 3 == 1:
                params["conv.weight"].grad[0, 0, 0, 0] = bad
                report = clipper.step()
                assert not report.finite
                assert report.skipped
                assert all(not p.grad.any() for p in params.values())
                continue
            clipper.step(), other.step()
            if step % 3 == 2:
                continue
            assert all(torch.equal(params[n].grad, clean[n].grad) for n in params), step
        assert clipper.record.summary().skipped == 4

    def test_raise_names_the_parameters_and_touches_nothing(self, parameters, fill):
        params = parameters()
        fill(params, 0)
        params["head.bias"].grad[1] = math.inf
        before = {n: p.grad.clone() for n, p in params.items()}
        clipper = gclip.Clipper(params.items(), "norm(max_norm=0.1)", nonfinite="raise")
        with pytest.raises(FloatingPointError, match=r"not finite at step 0: head\.bias$"):
            clipper.step()
        assert equal(params, before)

    def test_keep_clips_as_if_nothing_were(self, parameters, fill):
        params = parameters()
        fill(params, 0)
        params["head.bias"].grad[1] = math.inf
        report = gclip.Clipper(params.items(), "value(clip_value=0.1)", nonfinite="keep").step()
        assert params["head.bias"].grad[1] == pytest.approx(0.1)
        assert not report.finite
        assert not report.skipped

    def test_an_excluded_parameter_still_counts(self, parameters, fill):
        params = parameters()
        fill(params, 0)
        params["head.bias"].grad[1] = math.nan
        report = gclip.Clipper(params.items(), "norm", exclude=["head.*"]).step()
        assert report.skipped


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_norms_are_float32(self, dtype):
        # In fp16 this norm is inf, and torch then zeroes the gradients.
        w = torch.nn.Parameter(torch.zeros(10_000, dtype=dtype))
        w.grad = torch.full((10_000,), 1000.0, dtype=dtype)
        report = gclip.Clipper([w], "norm(max_norm=100)").step()
        assert report.norm.item() == pytest.approx(1e5, rel=1e-3)
        torch.testing.assert_close(w.grad, torch.full_like(w.grad, 1.0), rtol=1e-2, atol=0)

    @pytest.mark.parametrize("scope", ["global", "layer", "tensor", "unit"])
    def test_finite_gradients_whose_squares_overflow(self, scope, parameters, fill):
        params = parameters()
        fill(params, 0, 1e25)
        report = gclip.Clipper(params.items(), gclip.create("norm", scope=scope)).step()
        assert report.finite
        again = gclip.Clipper(params.items(), gclip.create("norm", scope=scope)).step()
        torch.testing.assert_close(again.norm, torch.ones_like(again.norm), rtol=1e-5, atol=0)

    def test_float64_gradients_stay_float64(self, spec, parameters, fill):
        single, double = parameters(), parameters(0, torch.float64)
        for step in range(5):
            fill(single, step), fill(double, step)
        clip_single, clip_double = (gclip.Clipper(p.items(), spec) for p in (single, double))
        for step in range(5):
            fill(single, step), fill(double, step)
            clip_single.step(), clip_double.step()
            for name in single:
                assert double[name].grad.dtype == torch.float64
                torch.testing.assert_close(
                    single[name].grad.double(), double[name].grad, rtol=5e-6, atol=1e-9
                )

    def test_layout_does_not_matter(self, spec, parameters, fill):
        params, strided = parameters(), parameters()
        fill(params, 0), fill(strided, 0)
        grad = strided["conv.weight"].grad
        strided["conv.weight"].grad = grad.contiguous(memory_format=torch.channels_last)
        strided["head.weight"].grad = strided["head.weight"].grad.t().contiguous().t()
        gclip.Clipper(params.items(), spec).step()
        gclip.Clipper(strided.items(), spec).step()
        for name in params:
            torch.testing.assert_close(params[name].grad, strided[name].grad, rtol=2e-6, atol=1e-9)


class TestParameters:
    def test_one_listed_twice_counts_once(self, parameters, fill):
        once, twice = parameters(), parameters()
        fill(once, 0), fill(twice, 0)
        a = gclip.Clipper(once.values(), "norm(max_norm=0.5)").step()
        b = gclip.Clipper([*twice.values(), *twice.values()], "norm(max_norm=0.5)").step()
        assert a.norm == b.norm
        assert all(torch.equal(once[n].grad, twice[n].grad) for n in once)

    def test_modules_and_both_kinds_of_iterables(self):
        model = torch.nn.Linear(3, 2)
        for given in (model, model.named_parameters(), model.parameters(), model.weight):
            assert isinstance(gclip.Clipper(given, "norm"), gclip.Clipper)

    def test_an_exhausted_generator_is_an_error(self):
        generator = torch.nn.Linear(3, 2).parameters()
        list(generator)
        with pytest.raises(ValueError, match="no parameters to clip"):
            gclip.Clipper(generator, "norm")

    def test_wrong_things(self):
        with pytest.raises(ValueError, match=r"takes a model.*but got int"):
            gclip.Clipper(3, "norm")
        with pytest.raises(ValueError, match="entry 0 is str"):
            gclip.Clipper(["weight"], "norm")
        with pytest.raises(ValueError, match="needs the parameters' names"):
            gclip.Clipper(torch.nn.Linear(3, 2).parameters(), "norm(scope=layer)")
        with pytest.raises(
            ValueError, match=r"unknown nonfinite policy 'skp'; did you mean 'skip'"
        ):
            gclip.Clipper(torch.nn.Linear(3, 2), "norm", nonfinite="skp")

    def test_patterns(self, parameters, fill):
        params = parameters()
        grads = fill(params, 0)
        strategies = {
            "stem.*": "norm(max_norm=0.1)",
            "conv.*": "none",
            "*": "value(clip_value=0.2)",
        }
        report = gclip.Clipper(params.items(), strategies, exclude=["head.bias"]).step()
        stem = torch.cat([params[n].grad.view(-1) for n in ("stem.scale", "stem.bias")])
        assert stem.norm().item() == pytest.approx(0.1, rel=1e-6)
        for name in ("conv.weight", "conv.bias", "head.bias"):
            assert torch.equal(params[name].grad, grads[name])
        for name in ("mix.weight", "head.weight"):
            assert torch.equal(params[name].grad, grads[name].clamp(-0.2, 0.2))
        assert [stage.strategy for stage in report.stages] == [
            "none", "norm(max_norm=0.1)", "none", "value(clip_value=0.2)",
        ]  # fmt: skip
        assert len(report.groups) == report.norm.numel() == 5

    def test_patterns_that_cannot_be_meant(self, parameters):
        with pytest.raises(ValueError, match=r"'hed\.\*' matches no parameter; did you mean 'head"):
            gclip.Clipper(parameters().items(), "norm", exclude=["hed.*"])
        with pytest.raises(ValueError, match=r"no pattern matches the parameter 'stem.scale'"):
            gclip.Clipper(parameters().items(), {"head.*": "norm"})


class TestState:
    def test_a_round_trip_through_a_file_gives_the_same_steps(
        self, spec, parameters, fill, tmp_path
    ):
        first, second = parameters(), parameters()
        clipper = gclip.Clipper(first.items(), spec)
        for step in range(40):
            fill(first, step)
            clipper.step()
        torch.save(clipper.state_dict(), tmp_path / "state.pt")
        resumed = gclip.Clipper(second.items(), spec)
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for step in range(40, 60):
            fill(first, step), fill(second, step)
            clipper.step(), resumed.step()
            assert all(torch.equal(first[n].grad, second[n].grad) for n in first)
        assert clipper.record.summary() == resumed.record.summary()
        assert len(resumed.record) == 60

    def test_the_state_is_a_copy(self, parameters, fill):
        params = parameters()
        clipper = gclip.Clipper(params.items(), "percentile")
        fill(params, 0)
        clipper.step()
        state = clipper.state_dict()
        kept = state["parts"][0]["memory"]["past"]["levels"][0]["slots"].clone()
        fill(params, 1)
        clipper.step()
        assert torch.equal(state["parts"][0]["memory"]["past"]["levels"][0]["slots"], kept)

    def test_a_state_of_something_else_is_refused(self, parameters, fill):
        params = parameters()
        state = gclip.Clipper(params.items(), "norm").state_dict()
        with pytest.raises(ValueError, match="the state is of norm, but this clipper has agc"):
            gclip.Clipper(params.items(), "agc").load_state_dict(state)


def test_the_unmeasured_clamp_is_the_same_clamp(parameters, fill):
    params, other = parameters(), parameters()
    fill(params, 0), fill(other, 0)
    quick = gclip.Clipper(params.items(), "value(clip_value=0.3)", nonfinite="keep", record=False)
    report = quick.step()
    gclip.Clipper(other.items(), "value(clip_value=0.3)").step()
    assert all(torch.equal(params[n].grad, other[n].grad) for n in params)
    with pytest.raises(ValueError, match="record=True"):
        _ = report.norm


def test_the_report_says_what_happened(parameters, fill):
    params = parameters()
    grads = fill(params, 0)
    report = gclip.Clipper(params.items(), "norm(max_norm=2, scope=layer)").step()
    assert report.groups == ("stem", "conv", "mix", "head")
    head = torch.cat([grads["head.weight"].view(-1), grads["head.bias"]]).norm()
    assert report.norm[3].item() == pytest.approx(head.item(), rel=1e-6)
    assert report.limit.tolist() == [2.0] * 4
    assert report.clipped.tolist() == (report.norm > 2).tolist()
    assert torch.equal(report.clipped_norm, report.norm.clamp(max=2))
    assert "4 groups" in repr(report)


@pytest.mark.parametrize("spec", ["agc(rule=clamp)", "norm(p=1, rule=clamp)", "value(lower=-0.1)"])
def test_unmeasured_clamps_may_still_look_at_what_they_need(spec, parameters, fill):
    params, other = parameters(), parameters()
    fill(params, 0), fill(other, 0)
    gclip.Clipper(params.items(), spec, nonfinite="keep", record=False).step()
    gclip.Clipper(other.items(), spec).step()
    assert all(torch.equal(params[n].grad, other[n].grad) for n in params)


@pytest.mark.parametrize("scope", ["global", "layer", "tensor", "unit", "element"])
def test_a_pattern_whose_parameters_have_no_gradient_yet(scope, parameters, fill):
    params = parameters()
    fill(params, 0)
    params["head.weight"].grad = params["head.bias"].grad = None
    strategy = gclip.create("norm", max_norm=0.1, scope=scope)
    report = gclip.Clipper(params.items(), {"head.*": strategy, "*": "none"}).step()
    assert report.finite
    assert not report.clipped.any()
