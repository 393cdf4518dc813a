"""Accelerate: `attach` around its optimizer, and a clipper in the loop, are a loop by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import gclip
from tests.integrations.frameworks import (
    BATCH,
    STEPS,
    adam,
    by_hand,
    dataset,
    loss_of,
    module,
    network,
    same,
)

pytestmark = pytest.mark.filterwarnings("ignore")
accelerate = module("accelerate")
STRATEGIES = ["adagc(warmup=3)", "norm(max_norm=0.9, rule=skip)", "clippy"]


def prepared(accumulate: int) -> tuple[Any, Any, Any, Any]:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = network()
    loader = DataLoader(dataset(), batch_size=BATCH)
    return accelerator, *accelerator.prepare(model, adam(model.parameters()), loader)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("accumulate", [1, 5])
def test_attach_clips_real_steps(strategy: str, accumulate: int) -> None:
    accelerator, model, optimizer, loader = prepared(accumulate)
    handle = gclip.attach(optimizer, strategy, model=model)
    for x, y in loader:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
    steps = STEPS // accumulate
    assert same(model, by_hand(strategy, accumulate=accumulate, steps=steps)[0])
    assert len(handle.record) == steps


@pytest.mark.parametrize("clips_too_late", [False, True])
def test_a_clipper_in_the_loop(clips_too_late: bool) -> None:
    accelerator, model, optimizer, loader = prepared(5)
    clipper = gclip.Clipper(model, "adagc(warmup=3)")
    for x, y in loader:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model(x), y))
            if accelerator.sync_gradients and not clips_too_late:
                clipper.step()
            optimizer.step()
            if accelerator.sync_gradients and clips_too_late:
                clipper.step()
            optimizer.zero_grad()
    expected, _ = by_hand("adagc(warmup=3)", accumulate=5, steps=10)
    assert same(model, expected) is not clips_too_late


def test_attached_before_it_is_wrapped_a_scaler_calls_it() -> None:
    from accelerate.optimizer import AcceleratedOptimizer

    prepared(1)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    handle = gclip.attach(optimizer, "norm(max_norm=0.1)", model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    wrapped = AcceleratedOptimizer(optimizer, scaler=scaler)
    x, y = dataset(1).tensors
    scaler.scale(loss_of(model(x), y)).backward()
    wrapped.step()
    assert len(handle.record) == 1
    assert handle.record.arrays()["norm"][0] < 100  # it was unscaled
    assert handle.record.arrays()["clipped_norm"][0] == pytest.approx(0.1)


def test_memory_goes_with_accelerates_checkpoints(tmp_path: Any) -> None:
    accelerator, model, optimizer, loader = prepared(1)
    handle = gclip.attach(optimizer, "adagc(warmup=3)", model=model)
    accelerator.register_for_checkpointing(handle)
    for index, (x, y) in enumerate(loader):
        accelerator.backward(loss_of(model(x), y))
        optimizer.step()
        optimizer.zero_grad()
        if index == 19:
            accelerator.save_state(tmp_path)
    whole = [p.detach().clone() for p in model.parameters()]
    accelerator, model, optimizer, loader = prepared(1)
    handle = gclip.attach(optimizer, "adagc(warmup=3)", model=model)
    accelerator.register_for_checkpointing(handle)
    accelerator.load_state(tmp_path)
    for x, y in accelerator.skip_first_batches(loader, 20):
        accelerator.backward(loss_of(model(x), y))
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(whole, model.parameters(), strict=True))
    assert len(handle.record) == STEPS
