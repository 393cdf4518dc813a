"""The optimizer's update and single examples, clipped, held against loops written by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gclip
from gclip import UsageError

SCOPES = ("global", "layer", "tensor", "unit")


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def batch(seed, examples=8):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, 4, generator=generator)
    return x, torch.randint(0, 3, (examples,), generator=generator)


def backward(model, seed):
    model.zero_grad()
    x, y = batch(seed)
    F.cross_entropy(model(x), y).backward()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def groups(model, tensors, scope):
    """Each group as the views of `tensors` (one a parameter) that share one norm."""
    names = [name for name, _ in model.named_parameters()]
    if scope == "global":
        return [list(tensors)]
    if scope == "layer":
        layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
        return [
            [t for n, t in zip(names, tensors, strict=True) if n.startswith(f"{layer}.")]
            for layer in layers
        ]
    if scope == "tensor":
        return [[t] for t in tensors]
    return [[row] for t in tensors for row in (t if t.ndim > 1 else [t])]


def norm_of(tensors):
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


def scale(model, tensors, scope, limit):
    """Scale each group down to `limit`, in place; the norms before."""
    norms = []
    for group in groups(model, tensors, scope):
        norms.append(norm_of(group))
        if norms[-1] > limit:
            for tensor in group:
                tensor.mul_(limit / norms[-1])
    return norms


class TestUpdate:
    @pytest.mark.parametrize("make", [sgd, adam])
    @pytest.mark.parametrize("scope", SCOPES)
    def test_the_step_is_scaled_to_the_limit(self, make, scope):
        ours, theirs = net(), net()
        optimizer, other = make(ours), make(theirs)
        limit = 0.02 if scope == "global" else 0.008
        handle = gclip.attach(
            optimizer, f"norm(max_norm={limit}, side=update, scope={scope})", model=ours
        )
        for step in range(4):
            backward(ours, step), backward(theirs, step)
            before = values(theirs)
            optimizer.step(), other.step()
            deltas = [p.detach() - b for p, b in zip(theirs.parameters(), before, strict=True)]
            want = scale(theirs, deltas, scope, limit)
            with torch.no_grad():
                for p, b, d in zip(theirs.parameters(), before, deltas, strict=True):
                    p.copy_(b + d)
            assert handle.report.norm.tolist() == pytest.approx(want, rel=2e-4, abs=1e-6)
            assert handle.report.clipped.any()
            for mine, his in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-6)
        assert len(handle.record) == 4
        assert handle.record.summary().clip_rate == 1.0
        last = handle.record.arrays()
        assert last["norm"][-1] == pytest.approx(norm_of([handle.report.norm]), rel=1e-5)
        assert last["clipped_norm"][-1] == pytest.approx(
            norm_of([handle.report.clipped_norm]), rel=1e-5
        )

    @pytest.mark.parametrize("make", [sgd, adam])
    def test_within_the_limit_every_bit_is_the_optimizers(self, make):
        ours, theirs = net(), net()
        optimizer, other = make(ours), make(theirs)
        spec = "chain(norm(max_norm=9, side=update), agc(clip_factor=9, side=update))"
        gclip.attach(optimizer, spec, model=ours)
        for step in range(5):
            backward(ours, step), backward(theirs, step)
            optimizer.step(), other.step()
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))

    def test_only_what_is_beyond_loses_its_bits(self):
        ours, theirs = net(), net()
        optimizer, other = sgd(ours), sgd(theirs)
        spec = {"2.*": "norm(max_norm=0.001, side=update)", "*": "norm(max_norm=9, side=update)"}
        gclip.attach(optimizer, spec, model=ours)
        backward(ours, 0), backward(theirs, 0)
        optimizer.step(), other.step()
        assert torch.equal(ours[0].weight, theirs[0].weight)
        assert not torch.equal(ours[2].weight, theirs[2].weight)

    @pytest.mark.parametrize("make", [sgd, adam])
    def test_skip_puts_the_parameters_back(self, make):
        model = net()
        handle = gclip.attach(make(model), "norm(max_norm=1e-6, rule=skip, side=update)")
        before = values(model)
        backward(model, 0)
        handle.optimizer.step()
        assert all(map(torch.equal, before, model.parameters()))
        assert handle.report.skipped
        assert handle.report.clipped_norm.item() == 0

    def test_weights_are_those_before_the_step(self):
        model = net()
        handle = gclip.attach(sgd(model), "agc(clip_factor=0.01, scope=tensor, side=update)")
        before = values(model)
        backward(model, 0)
        handle.optimizer.step()
        want = [0.01 * max(norm_of([b]), 1e-3) for b in before]
        assert handle.report.limit.tolist() == pytest.approx(want, rel=1e-5)

    def test_after_a_strategy_on_gradients(self):
        ours, theirs = net(), net()
        optimizer, other = sgd(ours), sgd(theirs)
        spec = "chain(norm(max_norm=0.1), norm(max_norm=0.005, side=update))"
        handle = gclip.attach(optimizer, spec)
        for step in range(3):
            backward(ours, step), backward(theirs, step)
            scale(theirs, [p.grad for p in theirs.parameters()], "global", 0.1)
            before = values(theirs)
            optimizer.step(), other.step()
            deltas = [p.detach() - b for p, b in zip(theirs.parameters(), before, strict=True)]
            scale(theirs, deltas, "global", 0.005)
            with torch.no_grad():
                for p, b, d in zip(theirs.parameters(), before, deltas, strict=True):
                    p.copy_(b + d)
            for mine, his in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-6)
        # What acts last is what is reported.
        assert handle.report.limit.item() == pytest.approx(0.005)

    def test_gradients_that_are_not_finite_never_reach_memory(self):
        spec = "percentile(p=50, side=update)"
        models = net(), net()
        handles = [gclip.attach(sgd(m), spec) for m in models]
        for step in range(6):
            bad = step == 3
            for model, handle in zip(models, handles, strict=True):
                if bad and handle is handles[1]:
                    continue
                backward(model, step)
                before = values(model)
                if bad:
                    model[0].weight.grad[0, 0] = math.nan
                handle.optimizer.step()
                if bad:
                    assert all(map(torch.equal, before, model.parameters()))
                    assert handle.report.skipped
        assert torch.equal(handles[0].report.limit, handles[1].report.limit)
        assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))

    def test_an_update_that_is_not_finite(self):
        for policy in ("skip", "raise", "keep"):
            model = net()
            spec = "percentile(p=50, side=update)"
            handle = gclip.attach(sgd(model), spec, nonfinite=policy)
            before = values(model)
            backward(model, 0)
            model[0].weight.grad.mul_(0).add_(1e20)
            handle.optimizer.param_groups[0]["lr"] = 1e30
            if policy == "raise":
                with pytest.raises(FloatingPointError, match="update is not finite at step 0"):
                    handle.optimizer.step()
                continue
            handle.optimizer.step()
            assert bool(handle.report.skipped) == (policy == "skip")
            back = [torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
            assert all(back) == (policy == "skip")
            handle.optimizer.param_groups[0]["lr"] = 0.1
            model.load_state_dict(net().state_dict())
            handle.optimizer.state.clear()
            backward(model, 0)
            handle.optimizer.step()
            assert torch.isfinite(handle.report.limit).all()  # memory has not seen the infinite one

    def test_by_hand_with_updating(self):
        ours, theirs = net(), net()
        optimizer = adam(ours)
        clipper = gclip.Clipper(ours, "norm(max_norm=0.01, side=update)", optimizer=optimizer)
        handle = gclip.attach(adam(theirs), "norm(max_norm=0.01, side=update)")
        assert clipper.on_updates
        for step in range(3):
            backward(ours, step), backward(theirs, step)
            early = clipper.step()
            assert early.groups == ("all",)
            with clipper.updating():
                optimizer.step()
            handle.optimizer.step()
            assert torch.equal(clipper.report.norm, handle.report.norm)
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
        assert len(clipper.record) == 3

    def test_a_missing_updating_is_told(self):
        model = net()
        optimizer = sgd(model)
        clipper = gclip.Clipper(model, "norm(side=update)")
        backward(model, 0)
        clipper.step()
        optimizer.step()
        backward(model, 1)
        with pytest.raises(UsageError, match="the last update was not clipped"):
            clipper.step()

    def test_without_such_strategies_updating_does_nothing(self):
        model = net()
        clipper = gclip.Clipper(model, "norm")
        with clipper.updating():
            pass
        assert not clipper.on_updates

    def test_an_error_in_the_optimizer_leaves_the_clipper_usable(self):
        model = net()
        clipper = gclip.Clipper(model, "norm(side=update)")
        for step in range(2):
            backward(model, step)
            clipper.step()
            with pytest.raises(RuntimeError, match="stop"), clipper.updating():
                raise RuntimeError("stop")

    def test_closures(self):
        ours, theirs = net(), net()
        optimizer, other = sgd(ours), sgd(theirs)
        first = gclip.attach(optimizer, "norm(max_norm=0.01, side=update)")
        second = gclip.attach(other, "norm(max_norm=0.01, side=update)")
        for step in range(3):
            optimizer.step(lambda step=step: backward(ours, step))
            backward(theirs, step)
            other.step()
            assert torch.equal(first.report.norm, second.report.norm)
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))

    def test_several_evaluations_of_a_closure_make_one_update(self):
        model = net()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0, max_iter=4)
        handle = gclip.attach(optimizer, "norm(max_norm=0.05, side=update)")

        def closure():
            model.zero_grad()
            x, y = batch(0)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        for _ in range(3):
            before = values(model)
            optimizer.step(closure)
            moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
            assert norm_of(moved) <= 0.05 * (1 + 1e-5)
            assert handle.report.limit.item() == pytest.approx(0.05)

    def test_state_goes_on_where_it_stopped(self):
        ours, theirs = net(), net()
        optimizer, other = sgd(ours), sgd(theirs)
        spec = "chain(percentile(p=80), percentile(p=50, side=update), acclip)"
        first = gclip.Clipper(ours, spec, optimizer=optimizer)
        second = gclip.Clipper(theirs, spec, optimizer=other)
        for step in range(5):
            for model, clipper, own in ((ours, first, optimizer), (theirs, second, other)):
                backward(model, step)
                clipper.step()
                with clipper.updating():
                    own.step()
            fresh = gclip.Clipper(theirs, spec, optimizer=other)
            fresh.load_state_dict(second.state_dict())
            second = fresh
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
        assert len(second.record) == 5


def by_hand(model, x, y, scope, limit, rule="scale"):
    """The mean of the examples' gradients, each clipped by itself; and the norms."""
    total, norms = [torch.zeros_like(p) for p in model.parameters()], []
    for one, label in zip(x, y, strict=True):
        model.zero_grad()
        F.cross_entropy(model(one[None]), label[None]).backward()
        grads = [p.grad.clone() for p in model.parameters()]
        if rule == "skip":
            norms.append([norm_of(g) for g in groups(model, grads, scope)])
            grads = [g * (max(norms[-1]) <= limit) for g in grads]
        else:
            norms.append(scale(model, grads, scope, limit))
        for sum_, grad in zip(total, grads, strict=True):
            sum_ += grad / len(x)
    model.zero_grad()
    return total, norms


class TestSample:
    @pytest.mark.parametrize("scope", SCOPES)
    def test_it_is_the_loop_over_single_examples(self, scope):
        model, limit = net(), {"global": 1.8, "layer": 1.0, "tensor": 0.8, "unit": 0.5}[scope]
        x, y = batch(0)
        want, norms = by_hand(model, x, y, scope, limit)
        clipper = gclip.Clipper(model, f"per_sample(max_norm={limit}, scope={scope})")
        loss = clipper.backward(x, y)
        report = clipper.step()
        assert loss.item() == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-6)
        torch.testing.assert_close(report.norm, torch.tensor(norms), rtol=1e-5, atol=1e-6)
        assert report.clipped.any()
        assert not report.clipped.all()
        for param, grad in zip(model.parameters(), want, strict=True):
            torch.testing.assert_close(param.grad, grad, rtol=1e-5, atol=1e-7)

    def test_other_strategies(self):
        model = net()
        x, y = batch(0)
        limits = 0.05 * torch.stack([p.detach().norm().clamp(min=1e-3) for p in model.parameters()])
        total = [torch.zeros_like(p) for p in model.parameters()]
        for one, label in zip(x, y, strict=True):
            model.zero_grad()
            F.cross_entropy(model(one[None]), label[None]).backward()
            for sum_, p, limit in zip(total, model.parameters(), limits, strict=True):
                sum_ += p.grad * min(1.0, float(limit / p.grad.norm())) / len(x)
        model.zero_grad()
        clipper = gclip.Clipper(model, "agc(clip_factor=0.05, scope=tensor, side=sample)")
        clipper.backward(x, y)
        clipper.step()
        for param, grad in zip(model.parameters(), total, strict=True):
            torch.testing.assert_close(param.grad, grad, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("scope", ["global", "unit"])
    def test_chunks_and_accumulation_change_nothing(self, scope):
        x, y = batch(0, 10)
        results = []
        for how in ("whole", "chunks", "batches"):
            model = net()
            clipper = gclip.Clipper(model, f"per_sample(max_norm=0.3, scope={scope})")
            if how == "batches":
                loss = clipper.backward(x[:4], y[:4], scale=0.4)
                loss = loss + clipper.backward(x[4:], y[4:], scale=0.6)
            else:
                loss = clipper.backward(x, y, chunk=3 if how == "chunks" else None)
            report = clipper.step()
            results.append((loss, report.norm, *[p.grad for p in model.parameters()]))
            assert report.norm.shape == (10, len(report.groups))
            assert clipper.record.arrays()["norm"].shape == (1,)
        for other in results[1:]:
            for mine, theirs in zip(results[0], other, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("scope", ["global", "tensor"])
    def test_skip_drops_the_examples_beyond(self, scope):
        model = net()
        x, y = batch(0)
        limit = 1.8 if scope == "global" else 1.2
        want, norms = by_hand(model, x, y, scope, limit, rule="skip")
        assert 0 < sum(max(each) > limit for each in norms) < len(x)
        clipper = gclip.Clipper(
            model, f"norm(max_norm={limit}, rule=skip, scope={scope}, side=sample)"
        )
        clipper.backward(x, y)
        report = clipper.step()
        assert not report.skipped
        for param, grad in zip(model.parameters(), want, strict=True):
            torch.testing.assert_close(param.grad, grad, rtol=1e-5, atol=1e-7)

    def test_within_the_limit_it_is_the_plain_gradient(self):
        model, plain = net(), net()
        clipper = gclip.Clipper(model, "per_sample(max_norm=100)")
        clipper.backward(*batch(0))
        report = clipper.step()
        backward(plain, 0)
        assert not report.clipped.any()
        for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-7)

    def test_one_example_cannot_count_for_more_than_the_limit(self):
        model = net()
        x, y = batch(0)
        x[3] *= 1e6
        clipper = gclip.Clipper(model, "per_sample(max_norm=0.1)")
        clipper.backward(x, y)
        clipper.step()
        assert norm_of([p.grad for p in model.parameters()]) <= 0.1 * (1 + 1e-5)

    def test_a_bad_example_skips_the_step(self):
        model = net()
        x, y = batch(0)
        x[3] = math.nan
        clipper = gclip.Clipper(model, "per_sample(max_norm=0.1)")
        clipper.backward(x, y)
        report = clipper.step()
        assert report.skipped
        assert all(not p.grad.any() for p in model.parameters())

    def test_then_the_mean_and_the_update(self):
        model = net()
        optimizer = sgd(model)
        spec = (
            "chain(per_sample(max_norm=0.3), norm(max_norm=0.1), norm(max_norm=0.005, side=update))"
        )
        handle = gclip.attach(optimizer, spec, model=model)
        for step in range(3):
            optimizer.zero_grad()
            handle.clipper.backward(*batch(step))
            before = values(model)
            optimizer.step()
            assert norm_of([p.grad for p in model.parameters()]) <= 0.1 * (1 + 1e-5)
            moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
            assert norm_of(moved) <= 0.005 * (1 + 1e-4)

    def test_warmup_and_floor(self):
        x, y = batch(0)
        plain, floored = [
            gclip.Clipper(net(), f"norm(max_norm=1e-9, side=sample, {more})")
            for more in ("warmup=1", "floor=0.5")
        ]
        grads = []
        for clipper in (plain, floored):
            clipper.backward(x, y)
            clipper.step()
            grads.append([p.grad.clone() for p in clipper.params])
        for whole, half in zip(*grads, strict=True):
            torch.testing.assert_close(half, whole / 2)
        plain.backward(x, y)
        plain.step()
        assert norm_of([p.grad for p in plain.params]) > 1e-3  # the first step's are still there

    def test_batch_norm_is_refused_in_training_mode_only(self):
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        clipper = gclip.Clipper(model, "per_sample")
        with pytest.raises(UsageError, match="1 is a batch norm in training mode"):
            clipper.backward(*batch(0))
        model.eval()
        clipper.backward(*batch(0))
        clipper.step()

    def test_frozen_parameters_and_dropout(self):
        model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))
        model[0].weight.requires_grad_(False)
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        clipper = gclip.Clipper(trained, "per_sample", model=model)
        clipper.backward(*batch(0))
        clipper.step()
        assert model[0].weight.grad is None
        assert all(p.grad is not None for _, p in trained)

    def test_mistakes_are_told(self):
        model = net()
        clipper = gclip.Clipper(model, "per_sample")
        assert clipper.per_sample
        backward(model, 0)
        with pytest.raises(UsageError, match="call clipper.backward"):
            clipper.step()
        with pytest.raises(UsageError, match="no examples"):
            clipper.backward(*batch(0, 0))
        with pytest.raises(UsageError, match="chunk must be a whole number"):
            clipper.backward(*batch(0), chunk=0)
        with pytest.raises(UsageError, match="for strategies that clip single examples"):
            gclip.Clipper(model, "norm").backward(*batch(0))
        with pytest.raises(UsageError, match="needs the model itself"):
            gclip.Clipper(model.parameters(), "per_sample")
        with pytest.raises(UsageError, match="one strategy may clip single examples"):
            gclip.Clipper(model, "chain(per_sample, norm(side=sample))")
        for spec in (
            "percentile(side=sample)",
            "value(side=sample)",
            "norm(side=sample, rule=clamp)",
        ):
            with pytest.raises(UsageError, match="sample"):
                gclip.parse(spec)

    def test_a_copied_model_is_another(self):
        model = net()
        with pytest.raises(UsageError, match="not all parameters given are that model's"):
            gclip.Clipper(model.named_parameters(), "per_sample", model=copy.deepcopy(model))


# -- updates that are skipped ----------------------------------------------------------------------

UPDATE_OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
}


def _held(params, optimizer):
    state = [(name, value) for p in params for name, value in optimizer.state[p].items()]
    return [p.detach().clone() for p in params], copy.deepcopy(state)


def _unchanged(params, optimizer, before):
    weights, state = _held(params, optimizer)
    return all(map(torch.equal, weights, before[0])) and all(
        name == other and torch.equal(value, kept)
        for (name, value), (other, kept) in zip(state, before[1], strict=True)
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", UPDATE_OPTIMIZERS)
def test_a_skipped_update_leaves_no_trace(name, masked, parameters, fill, monkeypatch):
    """Neither in weights, of which some are not clipped, nor in the optimizer's state."""
    if masked:  # as on a GPU, where nobody looks
        monkeypatch.setattr("gclip.clipping.update.on_host", lambda _: False)
        monkeypatch.setattr("gclip.clipping.step_snapshot.on_host", lambda _: False)
    named = parameters()
    params = list(named.values())
    optimizer = UPDATE_OPTIMIZERS[name](params)
    spec = {"head.*": "norm(max_norm=linear(100, 1e-6), side=update, rule=skip)", "*": "none"}
    clipper = gclip.Clipper(named.items(), spec, optimizer=optimizer, total_steps=6)
    skipped = []
    for step in range(6):
        fill(named, step)
        before = _held(params, optimizer)
        clipper.step()
        with clipper.updating():
            optimizer.step()
        skipped.append(bool(clipper.report.skipped))
        assert _unchanged(params, optimizer, before) == skipped[-1]
    assert (skipped[0], skipped[-1]) == (False, True)


@pytest.mark.parametrize("name", UPDATE_OPTIMIZERS)
def test_a_first_update_that_is_skipped_leaves_no_state(name, parameters, fill):
    named = parameters()
    optimizer = UPDATE_OPTIMIZERS[name](list(named.values()))
    handle = gclip.attach(optimizer, "norm(max_norm=1e-6, side=update, rule=skip)")
    before = {n: p.detach().clone() for n, p in named.items()}
    fill(named, 0)
    optimizer.step()
    assert bool(handle.report.skipped)
    assert not optimizer.state
    assert all(torch.equal(p, before[n]) for n, p in named.items())


@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
@pytest.mark.parametrize("name", UPDATE_OPTIMIZERS)
def test_an_update_that_is_not_finite_is_taken_back(name, nonfinite, parameters, fill):
    named = parameters()
    params = list(named.values())
    optimizer = UPDATE_OPTIMIZERS[name](params)
    handle = gclip.attach(optimizer, "norm(side=update)", nonfinite=nonfinite)
    fill(named, 0)
    optimizer.step()
    before = _held(params, optimizer)
    fill(named, 1)
    optimizer.param_groups[0]["lr"] = math.inf
    if nonfinite == "raise":
        with pytest.raises(FloatingPointError, match="update is not finite at step 1"):
            optimizer.step()
    else:
        optimizer.step()
        assert bool(handle.report.skipped)
    assert _unchanged(params, optimizer, before)


def test_a_plain_loop_whose_gradients_are_skipped_leaves_the_update_out(parameters, fill):
    named = parameters()
    params = list(named.values())
    optimizer = UPDATE_OPTIMIZERS["adam"](params)
    clipper = gclip.Clipper(named.items(), "norm(side=update)", optimizer=optimizer)
    for step in range(3):
        fill(named, step)
        if step == 2:
            params[1].grad[0] = math.nan
        before = _held(params, optimizer)
        clipper.step()
        with clipper.updating():
            optimizer.step()
    assert bool(clipper.report.skipped)
    assert _unchanged(params, optimizer, before)


def test_updates_are_skipped_only_with_the_optimizer_known(parameters):
    with pytest.raises(gclip.UsageError, match=r"pass Clipper\(…, optimizer=optimizer\)"):
        gclip.Clipper(parameters().items(), "norm(side=update, rule=skip)")
