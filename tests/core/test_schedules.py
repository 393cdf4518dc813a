"""Schedules, and what all strategies share: warm-up, floor, memory of elements."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

import gclip
from gclip import UsageError
from gclip.core.schedules import Schedule


def limits(clipper, params, fill, steps):
    found = []
    for step in range(steps):
        fill(params, step)
        found.append(clipper.step().limit[0].item())
    return found


class TestValues:
    @pytest.mark.parametrize(
        ("shape", "start", "quarter", "middle", "end"),
        [
            ("linear", 1.0, 0.775, 0.55, 0.1),
            ("cosine", 1.0, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.55, 0.1),
            ("exponential", 1.0, 10**-0.25, 10**-0.5, 0.1),
        ],
    )
    def test_start_middle_and_end(self, shape, start, quarter, middle, end):
        over = Schedule(shape, 1, 0.1, 101)
        assert [over.at(s, None) for s in (0, 25, 50, 100)] == pytest.approx(
            [start, quarter, middle, end], rel=1e-12
        )
        assert over.at(100, None) == end  # exactly
        assert over.at(10_000, None) == end
        whole = Schedule(shape, 1, 0.1)
        assert [whole.at(s, 101) for s in (0, 50, 100)] == pytest.approx([start, middle, end])
        assert over.at(50, 999) == pytest.approx(middle)  # its own steps come first

    def test_upwards_and_one_step(self):
        assert Schedule("linear", 0.1, 1, 3).at(1, None) == pytest.approx(0.55)
        assert Schedule("exponential", 0.01, 1, 3).at(1, None) == pytest.approx(0.1)
        assert Schedule("linear", 3, 5, 1).at(0, None) == 3
        assert Schedule("linear", 3, 5, 1).at(1, None) == 5


class TestClipper:
    def test_the_limit_follows(self, parameters, fill):
        params = parameters()
        spec = "norm(max_norm=linear(1, 0.2, steps=5))"
        found = limits(gclip.Clipper(params.items(), spec), params, fill, 7)
        assert found == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2])

    def test_the_clipper_may_know_the_steps(self, parameters, fill):
        params = parameters()
        spec = "norm(max_norm=cosine(1, 0.2))"
        clipper = gclip.Clipper(params.items(), spec, total_steps=5)
        assert limits(clipper, params, fill, 6) == pytest.approx(
            [1, 0.882843, 0.6, 0.317157, 0.2, 0.2], rel=1e-5
        )

    def test_attach_passes_them_on(self, parameters, fill):
        params = parameters()
        optimizer = torch.optim.SGD(params.values(), lr=0.0)
        handle = gclip.attach(optimizer, "norm(max_norm=linear(1, 0.2))", total_steps=3)
        fill(params, 0)
        for want in (1, 0.6, 0.2):
            optimizer.step()
            assert handle.report.limit.item() == pytest.approx(want)

    def test_nobody_knows_the_steps(self, parameters, fill):
        params = parameters()
        clipper = gclip.Clipper(params.items(), "norm(max_norm=linear(1, 0.2))")
        fill(params, 0)
        with pytest.raises(UsageError, match=r"steps=1000\), or Clipper\(…, total_steps=1000"):
            clipper.step()

    def test_quantiles_and_elements_and_chains(self, parameters, fill):
        """A field that memory is laid out for may vary too."""
        params = parameters()
        spec = (
            "chain(value(clip_value=linear(2, 1, steps=4)), percentile(p=linear(90, 10, steps=4)))"
        )
        clipper = gclip.Clipper(params.items(), spec)
        past = []
        for step in range(6):
            fill(params, step)
            cut = [
                p.grad.clamp(-2 + min(step, 3) / 3, 2 - min(step, 3) / 3) for p in params.values()
            ]
            past.append(float(torch.cat([c.flatten() for c in cut]).double().norm()))
            report = clipper.step()
            p = torch.tensor(past, dtype=torch.float64)
            want = torch.quantile(p, 0.9 - 0.8 * min(step, 3) / 3)
            assert report.limit[-1].item() == pytest.approx(want.item(), rel=1e-5)

    def test_unmeasured_clamps_follow_too(self, parameters, fill):
        params = parameters()
        clipper = gclip.Clipper(
            params.items(), "value(clip_value=linear(1, 0.5, steps=2))",
            nonfinite="keep", record=False,
        )  # fmt: skip
        for step, limit in enumerate((1.0, 0.5, 0.5)):
            fill(params, step, 5.0)
            clipper.step()
            assert max(p.grad.abs().max().item() for p in params.values()) == limit

    def test_a_resumed_schedule_goes_on(self, parameters, fill):
        params = parameters()
        spec = "norm(max_norm=linear(1, 0.2, steps=5))"
        first = gclip.Clipper(params.items(), spec)
        limits(first, params, fill, 3)
        second = gclip.Clipper(params.items(), spec)
        second.load_state_dict(first.state_dict())
        assert limits(second, params, fill, 2) == pytest.approx([0.4, 0.2])

    def test_on_the_other_sides(self):
        model = nn.Linear(3, 2)
        x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
        clipper = gclip.Clipper(model, "per_sample(max_norm=linear(1, 0.5, steps=3))")
        for want in (1, 0.75, 0.5):
            clipper.backward(x, y)
            assert clipper.step().limit.unique().tolist() == pytest.approx([want])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        handle = gclip.attach(optimizer, "norm(max_norm=linear(1, 0.5, steps=3), side=update)")
        for want in (1, 0.75, 0.5):
            optimizer.step()
            assert handle.report.limit.item() == pytest.approx(want)


class TestSpelling:
    @pytest.mark.parametrize(
        "text",
        [
            "norm(max_norm=linear(1, 0.1))",
            "norm(max_norm=cosine(1, 0.1, steps=500), scope=tensor)",
            "percentile(p=exponential(90, 10))",
            "chain(value(clip_value=linear(2, 1)), norm(max_norm=linear(1, 0.5), warmup=3))",
            "agc(clip_factor=exponential(0.5, 0.01), floor=0.1)",
        ],
    )
    def test_round_trip(self, text):
        made = gclip.parse(text)
        assert str(made) == text
        assert gclip.parse(str(made)) == made

    def test_other_ways_to_write_the_same(self):
        one = gclip.parse("norm(max_norm=linear(1, 0.1, steps=9))")
        assert one == gclip.parse("norm( max_norm = linear(1,0.1,9) )")
        assert one == gclip.parse("norm(max_norm=linear(start=1, end=0.1, steps=9))")
        assert one == gclip.create("norm", max_norm=gclip.Schedule("linear", 1, 0.1, 9))
        assert one == gclip.create("norm", max_norm=gclip.linear(1, 0.1, steps=9))
        for shape in (gclip.linear, gclip.cosine, gclip.exponential):
            text = f"norm(max_norm={shape.__name__}(1, 0.1))"
            assert gclip.parse(text) == gclip.create("norm", max_norm=shape(1, 0.1))
        assert hash(one) == hash(gclip.parse(str(one)))

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("norm(max_norm=linaer(1, 2))", "linear"),
            ("norm(max_norm=linear(1))", r"linear\(start, end\)"),
            ("norm(max_norm=linear(1, 2, 3, 4))", r"linear\(start, end\)"),
            ("norm(max_norm=linear(1, 2, steps=0))", "steps must be a whole number ≥ 1"),
            ("norm(max_norm=linear(1, 2, steps=1.5))", "steps must be a whole number ≥ 1"),
            ("norm(max_norm=linear(1, inf))", "end must be a finite number"),
            ("norm(max_norm=linear(1, -1))", "max_norm"),
            ("norm(max_norm=exponential(1, 0))", "above 0"),
            ("percentile(p=linear(10, 101))", "p"),
            ("norm(p=linear(1, 2))", "p"),
            ("norm(warmup=linear(1, 2))", "warmup"),
            ("aggc(scale_up=true, low=0.9, high=linear(2, 0.5))", "low <= high"),
        ],
    )
    def test_mistakes(self, text, says):
        with pytest.raises(UsageError, match=says):
            gclip.parse(text)


class TestShared:
    @pytest.mark.parametrize("rule", ["scale", "clamp", "normalize", "soft", "skip"])
    def test_warmup_leaves_every_bit(self, rule, parameters, fill):
        params = parameters()
        clipper = gclip.Clipper(params.items(), f"norm(max_norm=0.1, rule={rule}, warmup=3)")
        for step in range(5):
            grads = fill(params, step)
            report = clipper.step()
            same = all(torch.equal(p.grad, grads[n]) for n, p in params.items())
            assert same == (step < 3)
            assert (report.limit.item() == math.inf) == (step < 3)

    def test_memory_learns_in_the_warmup(self, parameters, fill):
        params = parameters()
        clipper = gclip.Clipper(params.items(), "percentile(p=50, warmup=4)")
        norms = []
        for step in range(5):
            fill(params, step, 1.0 + step)
            report = clipper.step()
            norms.append(report.norm.item())
        assert report.limit.item() == pytest.approx(sorted(norms)[2])

    @pytest.mark.parametrize("rule", ["scale", "normalize", "soft"])
    def test_floor(self, rule, parameters, fill):
        params = parameters()
        grads = fill(params, 0)
        clipper = gclip.Clipper(params.items(), f"norm(max_norm=1e-6, rule={rule}, floor=0.25)")
        report = clipper.step()
        for name, param in params.items():
            torch.testing.assert_close(param.grad, grads[name] / 4)
        assert report.clipped_norm.item() == pytest.approx(report.norm.item() / 4, rel=1e-6)

    def test_floor_does_nothing_above_it(self, parameters, fill):
        ours, theirs = parameters(), parameters()
        grads = fill(ours, 0)
        fill(theirs, 0)
        total = math.sqrt(sum(float(g.double().square().sum()) for g in grads.values()))
        limit = 0.5 * total
        gclip.Clipper(ours.items(), gclip.create("norm", max_norm=limit, floor=0.25)).step()
        gclip.Clipper(theirs.items(), gclip.create("norm", max_norm=limit)).step()
        assert all(torch.equal(ours[n].grad, theirs[n].grad) for n in ours)

    def test_where_a_floor_makes_no_sense(self):
        for spec in ("value(floor=0.1)", "norm(rule=skip, floor=0.1)", "spam(floor=0.1)"):
            with pytest.raises(UsageError, match="floor=0.1 makes no sense with"):
                gclip.parse(spec)
        with pytest.raises(UsageError, match="floor"):
            gclip.parse("norm(floor=1.5)")

    def test_a_transform_waits_too(self, parameters, fill):
        params = parameters()
        clipper = gclip.Clipper(params.items(), "power(p=0.5, warmup=2)")
        for step in range(3):
            grads = fill(params, step)
            clipper.step()
            same = all(torch.equal(p.grad, grads[n]) for n, p in params.items())
            assert same == (step < 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Least(gclip.Transform):
    """Keeps the smallest size that each element ever had."""

    name = "least"

    def remember(self, like):
        return {"least": torch.full_like(like, math.inf), "seen": torch.zeros_like(like[..., :1])}

    def transform(self, seen, memory):
        least = torch.minimum(memory["least"], seen.values.abs())
        return torch.copysign(least, seen.values), {"least": least, "seen": memory["seen"] + 1}


class TestTransforms:
    def test_memory_is_each_parameters_own(self, parameters, fill):
        params = parameters()
        clipper = gclip.Clipper(params.items(), Least())
        least = {name: torch.full(p.shape, math.inf) for name, p in params.items()}
        count = dict.fromkeys(params, 0)
        for step in range(5):
            grads = fill(params, step)
            if step < 2:  # appears late
                params["mix.weight"].grad = None
            if step == 3:  # is not there for once
                params["head.bias"].grad = None
            report = clipper.step()
            for name, param in params.items():
                if param.grad is None:
                    continue
                count[name] += 1
                least[name] = torch.minimum(least[name], grads[name].abs())
                assert torch.equal(param.grad.abs(), least[name])
                assert torch.equal(param.grad.sign(), grads[name].sign())
        memory = clipper.state_dict()["parts"][0]["memory"]
        assert {name: int(each["seen"]) for name, each in memory.items()} == count
        assert report.groups == tuple(params)
        for i, name in enumerate(params):
            after = params[name].grad
            assert report.clipped_norm[i].item() == pytest.approx(after.norm().item(), rel=1e-5)

    def test_a_bad_step_never_reaches_memory(self, parameters, fill):
        params = parameters()
        clipper = gclip.Clipper(params.items(), Least())
        fill(params, 0)
        clipper.step()
        before = [part["memory"] for part in clipper.state_dict()["parts"]]
        fill(params, 1)
        params["conv.weight"].grad[0, 0, 0, 0] = math.nan
        report = clipper.step()
        after = [part["memory"] for part in clipper.state_dict()["parts"]]
        for name, each in before[0].items():
            assert all(torch.equal(v, after[0][name][k]) for k, v in each.items())
        assert report.skipped
        assert all(not p.grad.any() for p in params.values())

    def test_state_round_trip(self, parameters, fill, tmp_path):
        ours, theirs = parameters(), parameters()
        first, second = (gclip.Clipper(p.items(), Least()) for p in (ours, theirs))
        for step in range(4):
            fill(ours, step), fill(theirs, step)
            first.step(), second.step()
            torch.save(second.state_dict(), tmp_path / "state.pt")
            second = gclip.Clipper(theirs.items(), Least())
            second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert all(torch.equal(ours[n].grad, theirs[n].grad) for n in ours)

    def test_a_state_about_other_parameters_is_refused(self, parameters, fill):
        params = parameters()
        fill(params, 0)
        clipper = gclip.Clipper(params.items(), Least())
        clipper.step()
        fewer = gclip.Clipper([("head.bias", params["head.bias"])], Least())
        with pytest.raises(UsageError, match="which this clipper does not have there"):
            fewer.load_state_dict(clipper.state_dict())

    def test_half_precision_is_transformed_in_float32(self):
        param = nn.Parameter(torch.zeros(3, dtype=torch.float16))
        param.grad = torch.tensor([1e-4, 0.25, -4.0], dtype=torch.float16)
        gclip.Clipper([param], "power(p=0.5)").step()
        want = torch.tensor([1e-2, 0.5, -2.0], dtype=torch.float16)
        torch.testing.assert_close(param.grad, want, rtol=1e-3, atol=0)


def test_warmup_on_the_update_counts_the_same_steps():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = gclip.attach(optimizer, "norm(max_norm=1e-3, warmup=2, side=update)")
    for step in range(4):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        assert bool(handle.report.clipped) == (step >= 2)
