"""Optimizers and schedules are torch's, whatever form they are computed in."""

from __future__ import annotations

import pytest
import torch

from gclip.errors import UsageError
from gclip.training import optimizers

CASES = {
    "sgd": (torch.optim.SGD, {"nesterov": True}, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-7}, {}),
    "adamw": (torch.optim.AdamW, {"amsgrad": True}, {}),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9, "centered": True}, {"momentum": 0.5}),
    "adagrad": (torch.optim.Adagrad, {"lr_decay": 0.01}, {}),
}
OF_TWO = ("muon",)  # of two of torch's, and has its own tests


def test_every_optimizer_is_checked():
    assert {*CASES, *OF_TWO} == set(optimizers.names())


@pytest.mark.parametrize("name", CASES)
def test_steps_equal_torchs_plain_form(name):
    cls, settings, momentum = CASES[name]
    start = [torch.randn(4, 3), torch.randn(5), torch.randn(())]
    ours = [torch.nn.Parameter(p.clone()) for p in start]
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    built = optimizers.build(
        name, ours, lr=0.01, weight_decay=0.1, settings=settings, **momentum, device="cpu"
    )
    plain = cls(theirs, lr=0.01, weight_decay=0.1, **settings, **momentum, foreach=False)
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        built.step()
        plain.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("total", [2, 7, 100, 333])
def test_schedules_equal_torchs(total):
    def torchs(make):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
        schedule = make(optimizer)
        rates = []
        for _ in range(total):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if len(rates) < total:
                schedule.step()
        return rates

    lr = torch.optim.lr_scheduler
    peers = {
        "constant": lambda o: lr.ConstantLR(o, factor=1.0),
        "cosine": lambda o: lr.CosineAnnealingLR(o, T_max=total),
        "onecycle": lambda o: lr.OneCycleLR(o, 0.3, total_steps=total, cycle_momentum=False),
    }
    assert set(peers) == set(optimizers.schedules())
    for name, make in peers.items():
        assert optimizers.learning_rates(name, 0.3, total) == pytest.approx(torchs(make), rel=1e-9)


def test_settings_are_named():
    with pytest.raises(UsageError, match=r"unknown setting 'beta' of optimizer adam.*'betas'"):
        optimizers.check_settings("adam", {"beta": 1})
    for ours in ("lr", "momentum", "fused", "foreach"):
        with pytest.raises(UsageError, match="unknown setting"):
            optimizers.check_settings("sgd", {ours: 1})


def test_what_torch_refuses_is_a_usage_error():
    params = [torch.nn.Parameter(torch.zeros(1))]
    with pytest.raises(UsageError, match=r"optimizer adam refuses .*beta"):
        optimizers.build("adam", params, lr=0.1, settings={"betas": (2.0, 0.9)})


def test_unknown_names():
    with pytest.raises(UsageError, match=r"unknown optimizer 'adamm'.*did you mean 'adam'"):
        optimizers.spec("adamm")
    with pytest.raises(UsageError, match=r"unknown schedule 'cosin'.*constant, cosine, onecycle"):
        optimizers.learning_rates("cosin", 0.1, 10)
