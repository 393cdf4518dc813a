"""Defects of existing clipping code, each with the test that ours does not have it.

The docstrings say where a defect lives; where that code is installed, the test shows it too.
"""

from __future__ import annotations

import importlib
import math
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import gclip
from gclip import UsageError
from gclip.core import quantile

WITH_PAST = (  # every strategy that learns from past norms or elements
    "percentile", "percentile(window=10)", "past_quantile", "quantile_tracking", "median_window",
    "zclip(warmup=2, max_norm=none)", "adagc(warmup=2)", "ema_ratio", "aggc", "adanorm",
    "lognormal_skip(ready=0)", "sigma_skip(start=2)", "ratio_skip", "spam(warmup=1)", "stable_spam",
)  # fmt: skip


def peer(name: str) -> ModuleType | None:
    """Other people's code, where it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def one(*grad: float, weight: float = 0.0, dtype=torch.float32) -> nn.Parameter:
    """A parameter with this gradient."""
    param = nn.Parameter(torch.full((len(grad),), weight, dtype=dtype))
    param.grad = torch.tensor(grad, dtype=dtype)
    return param


def norms_left(spec: str, norms: list[float], **settings) -> list[float]:
    """The norms that a clipper leaves of one parameter's gradients of these norms."""
    param = nn.Parameter(torch.ones(4))
    clipper = gclip.Clipper([("layer.weight", param)], spec, **settings)
    left = []
    for norm in norms:
        param.grad = torch.full((4,), norm / 2)
        clipper.step()
        left.append(param.grad.norm().item())
    return left


class TestTorchNorm:
    def test_a_negative_limit_flips_the_sign(self):
        """torch clip_grad_norm_: max_norm=-1 turns every gradient round."""
        theirs = one(3, 4)
        clip_grad_norm_([theirs], -1.0)
        assert (theirs.grad < 0).all()
        for spec in ("norm(max_norm=-1)", "value(clip_value=-1)", "agc(clip_factor=-0.1)"):
            with pytest.raises(UsageError, match="-"):
                gclip.parse(spec)

    def test_a_norm_exactly_at_the_threshold_changes(self):
        """torch clip_grad_norm_: 3 becomes 2.9999993 under max_norm=3."""
        ours, theirs = one(3), one(3)
        clip_grad_norm_([theirs], 3.0)
        assert theirs.grad.item() != 3.0
        for scope in ("global", "tensor", "unit", "element"):
            gclip.Clipper([ours], f"norm(max_norm=3, scope={scope})").step()
            assert ours.grad.item() == 3.0

    def test_half_precision_norms_overflow(self):
        """torch clip_grad_norm_: the fp16 norm is inf, and all gradients silently become zero."""
        ours, theirs = (one(*[60_000.0] * 4, dtype=torch.float16) for _ in range(2))
        clip_grad_norm_([theirs], 1.0)
        assert not theirs.grad.any()
        report = gclip.Clipper([ours], "norm(max_norm=1)").step()
        assert report.norm.item() == pytest.approx(120_000, rel=1e-3)
        assert ours.grad.float().norm().item() == pytest.approx(1, rel=1e-3)

    def test_one_inf_ruins_the_rest(self):
        """torch clip_grad_norm_: inf elements become NaN, all others 0, and nobody is told."""
        theirs = one(math.inf, 4)
        clip_grad_norm_([theirs], 1.0)
        assert theirs.grad[0].isnan()
        assert theirs.grad[1] == 0
        ours = one(math.inf, 4)
        with pytest.raises(FloatingPointError, match="not finite at step 0: 0$"):
            gclip.Clipper([ours], "norm", nonfinite="raise").step()
        assert ours.grad.tolist() == [math.inf, 4]
        clipper = gclip.Clipper([ours], "norm")
        report = clipper.step()
        assert not report.finite
        assert report.skipped
        assert ours.grad.tolist() == [0, 0]
        assert clipper.record.summary().skipped == 1

    def test_a_parameter_listed_twice(self):
        """torch clip_grad_norm_: it is counted twice and scaled twice."""
        ours, theirs = one(3, 4), one(3, 4)
        total = clip_grad_norm_([theirs, theirs], 1.0)
        assert total.item() > 5.1
        assert theirs.grad.norm().item() < 0.2
        report = gclip.Clipper([ours, ours], "norm(max_norm=1)").step()
        assert report.norm.item() == 5
        assert ours.grad.norm().item() == pytest.approx(1)

    @pytest.mark.filterwarnings("ignore:.*empty generator")
    def test_an_exhausted_generator(self):
        """torch clip_grad_norm_: a generator read before clips nothing."""
        model = nn.Linear(2, 2)
        model(torch.ones(1, 2)).sum().backward()
        params = model.parameters()
        list(params)
        clip_grad_norm_(params, 1e-3)
        assert model.weight.grad.norm() > 1
        with pytest.raises(UsageError, match="had already been read"):
            gclip.Clipper(params, "norm")


class TestTorchValue:
    def test_nothing_to_clip_is_an_obscure_error(self):
        """torch clip_grad_value_: raises about nested_tensorlist where no gradient is there."""
        model = nn.Linear(2, 2)
        with pytest.raises(RuntimeError):
            clip_grad_value_(model.parameters(), 1.0)
        clipper = gclip.Clipper(model, "value")
        with pytest.warns(UserWarning, match="no parameter has a gradient"):
            clipper.step()
        with pytest.raises(UsageError, match="there are no parameters to clip"):
            gclip.Clipper([], "value")


class TestHistories:
    @pytest.mark.parametrize("spec", WITH_PAST)
    @pytest.mark.parametrize("policy", ["skip", "keep"])
    def test_one_nan_poisons_the_history(self, spec, policy):
        """AutoClip, ZClip, PyPI autoclip: all later gradients are NaN, or adaptation is off."""
        norms = [1.0, 2.0, 1.5, math.nan, 1.0, math.inf, 2.0, 1.5, 2.5]
        left = norms_left(spec, norms, nonfinite=policy)
        clean = norms_left(spec, [n for n in norms if math.isfinite(n)])
        fine = [after for after, norm in zip(left, norms, strict=True) if math.isfinite(norm)]
        assert fine == pytest.approx(clean, rel=1e-6)

    def test_the_same_of_autoclip(self):
        """PyPI autoclip QuantileClip: after one NaN every gradient is NaN."""
        autoclip = peer("autoclip.torch")
        if autoclip is None:
            pytest.skip("autoclip is not installed")
        param = one(1, 1)
        clipper = autoclip.QuantileClip([param])
        for norm in (1.0, math.nan, 1.0, 1.0):
            param.grad = torch.full((2,), norm)
            clipper.step()
        assert param.grad.isnan().all()

    @pytest.mark.parametrize("scope", ["global", "unit"])
    def test_cost_of_a_step_grows_with_the_history(self, scope):
        """AutoClip: sorts its whole unbounded history at every step.

        `gclip.core.quantile` keeps the past too, but looks at a few numbers of it a step.
        """
        past = quantile.empty(torch.zeros(2), 0.1)
        random = torch.Generator().manual_seed(0)
        for _ in range(3000):
            past = quantile.push(past, torch.rand(2, generator=random))
        assert past["levels"][0]["slots"].shape[-1] < 100
        # And those that look at a window hold no more than it.
        for spec in ("past_quantile(window=10)", "sigma_skip(window=10, start=2)",
                     "median_window(window=10)", "percentile(window=10)"):  # fmt: skip
            param = nn.Parameter(torch.ones(2, 2))
            strategy = gclip.parse(f"{spec[:-1]}, scope={scope})")
            clipper = gclip.Clipper([param], strategy)
            for step in range(30):
                param.grad = torch.full((2, 2), 1.0 + step)
                clipper.step()
            assert (
                max(t.shape[-1] for t in tensors(clipper.state_dict()["parts"][0]["memory"])) <= 10
            )

    def test_a_deviation_without_the_mean(self):
        """PyPI autoclip StandardClip: the limit is k·std, so that equal norms clip to nothing."""
        for spec in ("sigma_skip(start=2, rule=scale)", "zclip(warmup=2, max_norm=none)"):
            assert norms_left(spec, [5.0] * 8) == pytest.approx([5.0] * 8)

    @pytest.mark.parametrize("spec", WITH_PAST)
    def test_a_deviation_of_one_sample(self, spec):
        """PyPI autoclip StandardClip: see the next test."""
        left = norms_left(spec, [2.0, 2.0, 2.0, 3.0, 2.0])
        assert all(math.isfinite(norm) for norm in left)
        assert left[1] > 0

    @pytest.mark.filterwarnings("ignore:std")
    def test_the_same_of_autoclips_deviation(self):
        """PyPI autoclip StandardClip: std of one norm is NaN, so are all gradients at step 2."""
        autoclip = peer("autoclip.torch")
        if autoclip is None:
            pytest.skip("autoclip is not installed")
        param = one(1, 1)
        clipper = autoclip.StandardClip([param])
        for _ in range(2):
            param.grad = torch.ones(2)
            clipper.step()
        assert param.grad.isnan().all()


class TestSmartclip:
    @pytest.mark.parametrize(
        "spec", ["quantile_tracking(start=10)", "percentile(p=50, window=20)", "ema_ratio",
                 "past_quantile(window=100)", "median_window(window=20)",
                 "zclip(warmup=5, max_norm=none)"],
    )  # fmt: skip
    def test_a_limit_that_can_only_rise(self, spec):
        """smartclip: its EMA "quantile" never falls, though norms do."""
        limits, _ = gclip.simulate(gclip.parse(spec), [10.0] * 40 + [0.1] * 300)
        assert limits[-1] < limits[40] / 2

    def test_warm_up_counts_groups(self):
        """smartclip: with 50 groups a warm-up of 100 steps is over after two."""
        param = nn.Parameter(torch.ones(50, 2))
        clipper = gclip.Clipper([param], "zclip(warmup=4, max_norm=none, scope=unit)")
        shared = gclip.Clipper([param], "norm(max_norm=1e-3, warmup=4, scope=unit)")
        for step in range(5):
            for each, at_work in ((clipper, 1e-9), (shared, 0.0)):
                param.grad = torch.full((50, 2), 1.0 if step < 4 else 100.0) + at_work
                report = each.step()
                assert bool(report.clipped.all()) == (step == 4)
                assert bool(report.clipped.any()) == (step == 4)

    def test_clipping_after_the_optimizers_step(self):
        """smartclip's Trainer callback, and loops in the wild: the gradient is clipped when the
        optimizer has used it."""
        param = one(30, 40)
        optimizer = torch.optim.SGD([param], lr=1.0)
        gclip.attach(optimizer, "norm(max_norm=5)")
        optimizer.step()
        assert (-param.detach()).tolist() == pytest.approx([3, 4])


class TestRelativeToWeights:
    @pytest.mark.parametrize(
        "spec", ["agc", "agc(scope=tensor)", "agc(scope=layer)", "larc", "clippy(absolute=1e-3)",
                 "agc(side=update)"],
    )  # fmt: skip
    def test_weights_that_start_at_zero_never_train(self, spec):
        """smartclip, composer AGC: no floor, so a weight of zero has gradient 0 for ever."""
        param = nn.Parameter(torch.zeros(3, 2))
        optimizer = torch.optim.SGD([("head.weight", param)], lr=1.0)
        gclip.attach(optimizer, spec)
        for _ in range(3):
            param.grad = torch.ones(3, 2)
            optimizer.step()
        assert (param < -1e-6).all()

    def test_the_wrong_axis_for_linear(self):
        """nfnets-pytorch AGC: reduces dimension 0 of a Linear, which counts inputs."""
        linear = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor([[3.0, 4.0], [9.0, 40.0], [0.0, 0.0]]))
        linear.weight.grad = torch.tensor([[7.0, 24.0], [5.0, 12.0], [3.0, 4.0]])
        gclip.Clipper(linear, "agc(clip_factor=0.5)").step()
        want = torch.tensor([[0.7, 2.4], [5.0, 12.0], [3e-4, 4e-4]])
        torch.testing.assert_close(linear.weight.grad, want)

    def test_excluding_has_no_effect(self):
        """nfnets-pytorch AGC: what is excluded is clipped all the same."""
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        for param in model.parameters():
            param.grad = torch.full_like(param, 100.0)
        gclip.Clipper(model, "agc", exclude=["1.*"]).step()
        assert all((p.grad == 100).all() for p in model[1].parameters())
        assert all((p.grad < 100).all() for p in model[0].parameters())
        with pytest.raises(UsageError, match="matches no parameter"):
            gclip.Clipper(model, "agc", exclude=["head.*"])

    def test_the_head_is_the_last_two_parameters(self):
        """timm AGC: leaves out the last two parameters in order, whatever they are."""
        model = nn.ModuleDict({"head": nn.Linear(2, 2), "body": nn.Linear(2, 2)})
        for param in model.parameters():
            param.grad = torch.full_like(param, 100.0)
        gclip.Clipper(model, "agc", exclude=["head.*"]).step()
        assert all((p.grad == 100).all() for p in model["head"].parameters())
        assert all((p.grad < 100).all() for p in model["body"].parameters())


class TestNoEffect:
    """pytorch_optimizer (older releases): "the loss went down" passed all of these."""

    def test_spam_edits_a_copy(self):
        """pytorch_optimizer SPAM: clips a copy of the gradient's masked elements."""
        param = nn.Parameter(torch.zeros(3))
        clipper = gclip.Clipper([param], "spam(threshold=4, decay=0.5, warmup=1)")
        param.grad = torch.tensor([1.0, -1.0, 1.0])
        clipper.step()
        grad = param.grad = torch.tensor([1.0, -1000.0, 1.0])
        clipper.step()
        assert param.grad is grad
        assert grad.tolist() == pytest.approx([1.0, -math.sqrt(2.0), 1.0])

    def test_adagc_warms_up_with_the_square(self):
        """pytorch_optimizer AdaGC: γ starts as the smallest *squared* norm."""
        left = norms_left("adagc(warmup=1, relative=1.5)", [0.5, 100.0])
        assert left == pytest.approx([0.5, 0.75])

    def test_update_rms_upside_down(self):
        """pytorch_optimizer Adafactor: its clip enlarges what it should shrink."""
        for size, want in ((5.0, 1.0), (0.5, 0.5)):
            param = one(size, -size, size)
            optimizer = torch.optim.SGD([param], lr=1.0)
            gclip.attach(optimizer, "update_rms(max_rms=1)")
            optimizer.step()
            assert param.detach().abs().tolist() == pytest.approx([want] * 3)

    def test_adanorms_average_is_never_updated(self):
        """pytorch_optimizer AdaNorm: the average stays 0, so nothing is ever raised."""
        left = norms_left("adanorm(decay=0.5)", [4.0, 4.0, 0.1])
        assert left == pytest.approx([4.0, 4.0, 0.5 * (0.5 * 2 + 0.5 * 4) + 0.05])


class TestDeepSpeed:
    @pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
    @pytest.mark.parametrize("scope", ["global", "layer", "tensor", "unit"])
    def test_p_norms_other_than_two(self, p, scope):
        """DeepSpeed: adds up p-norms as if p were 2."""
        torch.manual_seed(0)
        named = [(f"layer.{n}", nn.Parameter(torch.zeros(s))) for n, s in (("w", (4, 3)), ("b", 4))]
        for _, param in named:
            param.grad = torch.randn(param.shape)
        parts = {
            "tensor": [q.grad for _, q in named],
            "unit": [*named[0][1].grad, named[1][1].grad],
        }.get(scope, [torch.cat([q.grad.flatten() for _, q in named])])
        want = [np.linalg.norm(g.double().numpy().ravel(), ord=p) for g in parts]
        strategy = gclip.create("norm", max_norm=1.0, p=p, scope=scope)
        report = gclip.Clipper(named, strategy).step()
        assert report.norm.tolist() == pytest.approx(want, rel=1e-5)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("policy", ["skip", "keep"])
    @pytest.mark.parametrize("rule", ["scale", "clamp", "normalize", "soft", "skip"])
    def test_a_sentinel_for_the_norm_negates_gradients(self, bad, policy, rule):
        """DeepSpeed: −1 stands for a norm that is not finite, and may become a factor."""
        good, broken = one(1, 2), one(bad, 1)
        spec = f"norm(max_norm=0.5, scope=tensor, rule={rule})"
        report = gclip.Clipper([good, broken], spec, nonfinite=policy).step()
        assert (good.grad >= 0).all()
        assert not (broken.grad[1] < 0)
        assert not report.finite


class TestLoops:
    def test_clipping_each_micro_batch(self):
        """Loops in the wild: each micro-batch is clipped, not the accumulated gradient."""
        model = nn.Linear(2, 1, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        handle = gclip.attach(optimizer, "norm(max_norm=1)")
        for x in ([3.0, 0.0], [0.0, 4.0]):
            model(torch.tensor([x])).sum().backward()
        optimizer.step()
        assert handle.report.norm.item() == 5
        assert len(handle.record) == 1
        assert model.weight.grad[0].tolist() == pytest.approx([0.6, 0.8])

    def test_clipping_before_unscaling(self):
        """Loops in the wild: the limit is held against gradients 65,536 times too large."""
        model = nn.Linear(2, 1, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        handle = gclip.attach(optimizer, "norm(max_norm=1)")
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(model(torch.tensor([[3.0, 4.0]])).sum()).backward()
        assert model.weight.grad.norm() > 1000
        scaler.step(optimizer)  # unscales, then steps
        assert handle.report.norm.item() == pytest.approx(5)

    def test_clipping_what_a_fused_optimizer_has_yet_to_unscale(self):
        """The same with fused optimizers, which unscale within their step: refused."""
        model = nn.Linear(2, 1, bias=False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, fused=True)
        gclip.attach(optimizer, "norm(max_norm=1)")
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(model(torch.tensor([[3.0, 4.0]])).sum()).backward()
        with pytest.raises(UsageError, match=r"call scaler\.unscale_\(optimizer\) before"):
            scaler.step(optimizer)

    def test_which_norm_was_logged(self):
        """Loops in the wild: the norm before clipping is logged and read as the one after."""
        param = one(30, 40)
        clipper = gclip.Clipper([param], "norm(max_norm=5)")
        report = clipper.step()
        assert report.norm.item() == 50
        assert report.clipped_norm.item() == pytest.approx(param.grad.norm().item()) == 5
        rows = clipper.record.arrays()
        assert (rows["norm"][0], rows["clipped_norm"][0]) == (50, 5)


# FSDP users who take a shard's norm for the whole gradient's: test_sharded.py, as it needs two
# processes (test_the_local_norm_is_not_taken_for_the_global).


def tensors(memory) -> list[torch.Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(memory, torch.Tensor):
        return [memory]
    if isinstance(memory, dict):
        memory = list(memory.values())
    return [t for each in memory for t in tensors(each)] if isinstance(memory, list) else []
