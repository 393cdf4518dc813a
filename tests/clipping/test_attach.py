"""`attach`: clipping at every optimizer step, the step left out where gradients are not finite."""

from __future__ import annotations

import pytest
import torch

import gclip


def pair():
    torch.manual_seed(0)
    first = torch.nn.Linear(4, 3)
    second = torch.nn.Linear(4, 3)
    second.load_state_dict(first.state_dict())
    return first, second


def backward(model, step, bad=False):
    model.zero_grad()
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    model(x).square().sum().backward()
    if bad:
        model.weight.grad[0, 0] = float("nan")


def test_the_same_as_clipping_by_hand():
    ours, theirs = pair()
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9)
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    handle = gclip.attach(optimizer, "norm(max_norm=0.5)")
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    others = torch.optim.lr_scheduler.StepLR(other, 2, 0.5)
    for step in range(6):
        backward(ours, step), backward(theirs, step)
        optimizer.step()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        other.step()
        scheduler.step(), others.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-7)
    assert len(handle.record) == 6
    assert handle.report.limit.item() == 0.5


def test_a_step_that_is_not_finite_is_left_out_altogether():
    model, _ = pair()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    gclip.attach(optimizer, "norm")
    backward(model, 0)
    optimizer.step()
    before = [p.detach().clone() for p in model.parameters()]
    moments = [s["exp_avg"].clone() for s in optimizer.state.values()]
    backward(model, 1, bad=True)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    states = list(optimizer.state.values())
    assert all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, states, strict=True))
    assert all(s["step"] == 1 for s in states)


def test_remove_gives_the_optimizer_back():
    model, _ = pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gclip.attach(optimizer, "norm(max_norm=0)") as handle:
        with pytest.raises(ValueError, match="clipped already"):
            gclip.attach(optimizer, "norm")
        before = model.weight.detach().clone()
        backward(model, 0)
        optimizer.step()
        assert torch.equal(model.weight, before)
    handle.remove()
    backward(model, 0)
    optimizer.step()
    assert not torch.equal(model.weight, before)
    gclip.attach(optimizer, "norm").remove()


def test_closures_are_clipped_at_each_evaluation():
    model, _ = pair()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn=None)
    handle = gclip.attach(optimizer, "norm(max_norm=0.1)")
    x = torch.randn(8, 4)
    evaluations = 0

    def closure():
        nonlocal evaluations
        evaluations += 1
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert len(handle.record) == evaluations > 1
    assert handle.record.arrays()["clipped_norm"].max() <= 0.1 * (1 + 1e-6)


def test_names_come_from_the_model_or_the_optimizer():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="needs the parameters' names"):
        gclip.attach(optimizer, "norm(scope=layer)")
    handle = gclip.attach(optimizer, {"0.*": "norm", "*": "none"}, model=model)
    assert handle.clipper.names == ("0.weight", "0.bias", "1.weight", "1.bias")
    handle.remove()
    named = torch.optim.SGD(model.named_parameters(), lr=0.1)
    assert gclip.attach(named, "norm(scope=layer)").clipper.names == handle.clipper.names
    with pytest.raises(ValueError, match="not the given model's"):
        gclip.attach(torch.optim.SGD([torch.zeros(1)], lr=1.0), "norm", model=model)
    with pytest.raises(ValueError, match="takes a torch optimizer, but got Sequential"):
        gclip.attach(model, "norm")


def test_gradients_still_scaled_are_refused():
    model, _ = pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gclip.attach(optimizer, "norm")
    backward(model, 0)
    optimizer.grad_scale = torch.tensor(1024.0)  # what GradScaler.step leaves on fused optimizers
    with pytest.raises(ValueError, match=r"scaler.unscale_\(optimizer\)"):
        optimizer.step()
