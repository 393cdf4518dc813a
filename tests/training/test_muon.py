"""Muon's matrices and AdamW's rest are stepped as torch steps them, within one optimizer."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import gclip
from gclip.clipping.step_snapshot import StepSnapshot
from gclip.errors import UsageError
from gclip.training import RunConfig, load_dataset, models, optimizers, train
from gclip.training.fleet.train import unsupported
from gclip.training.muon import MuonWithAdamW, split
from gclip.training.stepping import Stepper

MODEL = "mlp(width=6, depth=2)"
CHECKED = RunConfig(model=MODEL, optimizer="muon", fraction=0.1, epochs=2)


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 6), nn.Linear(6, 3)
    )


def give_gradients(*nets: nn.Module, seed: int = 0, factor: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameters in zip(*(each.parameters() for each in nets), strict=True):
        grad = factor * torch.randn(parameters[0].shape, generator=generator)
        for parameter in parameters:
            parameter.grad = grad.clone()


def test_hidden_matrices_go_to_muon_and_the_rest_to_adamw() -> None:
    named = dict(models.build("vit").named_parameters())
    matrices, others = (
        {name for name, p in named.items() if any(p is each for each in part)}
        for part in split(named.values())
    )
    assert {"embed.weight", "blocks.0.attention.qkv.weight", "blocks.3.mlp.2.weight"} <= matrices
    assert {"fc.weight", "fc.bias", "position", "norm.weight", "embed.bias"} <= others
    assert len(matrices) == 1 + 4 * 4
    assert matrices | others == set(named)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
def test_steps_are_torchs(layout: torch.memory_format, adjust: str) -> None:
    ours, theirs = net().to(memory_format=layout), net()
    built = optimizers.build(
        "muon", ours.parameters(), lr=0.02, momentum=0.9, weight_decay=0.1,
        settings={"adjust_lr_fn": adjust, "betas": (0.8, 0.9)},
    )  # fmt: skip
    # By hand: a convolution's filters as rows, in a matrix of its own.
    rows = nn.Parameter(theirs[0].weight.detach().flatten(1).clone())
    muon = torch.optim.Muon(
        [rows, theirs[3].weight], lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn=adjust
    )
    rest = [theirs[0].bias, *theirs[2].parameters(), theirs[3].bias, *theirs[4].parameters()]
    adamw = torch.optim.AdamW(rest, lr=0.02, weight_decay=0.1, betas=(0.8, 0.9))
    for step in range(4):
        give_gradients(ours, theirs, seed=step)
        rows.grad = theirs[0].weight.grad.flatten(1)
        for each in (built, muon, adamw):
            each.step()
    # Muon computes in bfloat16, where another order of the columns leaves a trace.
    loose = {"rtol": 1e-5, "atol": 1e-6 if layout is torch.contiguous_format else 2e-3}
    torch.testing.assert_close(ours[0].weight.flatten(1), rows, **loose)
    for name, parameter in theirs.named_parameters():
        if name != "0.weight":
            torch.testing.assert_close(ours.get_parameter(name), parameter, rtol=1e-5, atol=1e-6)


def test_it_is_saved_loaded_copied_and_taken_back_as_one() -> None:
    one, other = net(), net(1)
    first = MuonWithAdamW(one.parameters(), lr=0.01)
    give_gradients(one)
    first.step()
    second = MuonWithAdamW(other.parameters(), lr=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    other.load_state_dict(one.state_dict())
    third_net, third = copy.deepcopy((one, first))
    before = {name: p.detach().clone() for name, p in one.named_parameters()}
    snapshot = StepSnapshot(first)
    for model, optimizer in ((one, first), (other, second), (third_net, third)):
        give_gradients(model, seed=1)
        optimizer.step()
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name
        assert torch.equal(parameter, third_net.get_parameter(name)), name
        assert not torch.equal(parameter, before[name]), name
    snapshot.restore()
    for name, value in before.items():
        assert torch.equal(one.get_parameter(name), value)
    give_gradients(one, seed=1)
    first.step()
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


@pytest.mark.parametrize("strategy", ["norm(max_norm=0.5)", "norm(max_norm=1e-3, side=update)"])
def test_one_norm_over_the_parameters_of_both(strategy: str) -> None:
    model = net()
    optimizer = MuonWithAdamW(model.parameters(), lr=0.01)
    clipper = gclip.Clipper(model, strategy, optimizer=optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    give_gradients(model)
    every = torch.cat([p.grad.flatten() for p in model.parameters()])
    clipper.step()
    if clipper.on_updates:
        with clipper.updating():
            optimizer.step()
        moved = [(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]
        assert torch.cat(moved).norm().item() == pytest.approx(1e-3, rel=1e-3)
    else:
        clipped = torch.cat([p.grad.flatten() for p in model.parameters()])
        torch.testing.assert_close(clipped, every * (0.5 / every.norm()))


def test_a_skipped_step_changes_nothing() -> None:
    model = net()
    optimizer = MuonWithAdamW(model.parameters(), lr=0.01)
    stepper = Stepper(optimizer)
    for skipped in (False, True):
        give_gradients(model)
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
        stepper.step(torch.tensor([skipped]))
        same = all(torch.equal(v, before[0][k]) for k, v in model.state_dict().items())
        assert same == skipped


def test_runs_resume_to_the_same_bits_and_stay_out_of_fleets(tmp_path) -> None:
    digits = load_dataset("digits")
    config = CHECKED.replace(schedule="cosine", strategy="percentile(window=4)")
    whole = train(config, dataset=digits, device="cpu")
    path = tmp_path / "run.ckpt"
    train(config, dataset=digits, device="cpu", checkpoint=path, on_progress=lambda p: p.epoch < 1)
    resumed = train(config, dataset=digits, device="cpu", checkpoint=path)
    assert resumed.loss == whole.loss
    np.testing.assert_array_equal(resumed.steps["norm"], whole.steps["norm"])
    assert "one matrix of a step orthogonal at a time" in unsupported(config)


def test_a_head_alone_is_adamws_and_what_torch_refuses_is_said() -> None:
    head, peer = nn.Linear(3, 2), nn.Linear(3, 2)
    peer.load_state_dict(head.state_dict())
    both = [
        optimizers.build("muon", head.parameters(), lr=0.01),
        torch.optim.AdamW(peer.parameters(), lr=0.01, weight_decay=0.0),
    ]
    give_gradients(head, peer)
    for each in both:
        each.step()
    torch.testing.assert_close(head.weight, peer.weight)
    with pytest.raises(UsageError, match="muon refuses its settings .*Adjust learning rate"):
        optimizers.build("muon", head.parameters(), lr=0.01, settings={"adjust_lr_fn": "no"})
    assert (CHECKED.lr, CHECKED.momentum) == (3e-3, 0.95)
