"""Promises about training a model: gradients, and a few clipped steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gclip.clipping.clipper import Clipper
from gclip.training.contract.model_subject import CONTRACT, ModelSubject
from gclip.training.contract.world import world

STEPS = 4


@CONTRACT.promise("gradients reach every parameter that is trained")
def gradients(subject: ModelSubject) -> Iterator[str]:
    """Finite ones; they may be zero."""
    for inputs in subject.inputs:
        model = subject.model(inputs).train()
        with world(0):
            _loss(model, subject.examples(inputs)).backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                yield f"inputs {inputs}: no gradient reaches {name}"
            elif not bool(torch.isfinite(parameter.grad).all()):
                yield f"inputs {inputs}: the gradient of {name} is not finite"


@CONTRACT.promise("a few steps train it, clipped by norm")
def trains(subject: ModelSubject) -> Iterator[str]:
    """With Adam: losses stay finite, and a parameter moves."""
    inputs = subject.inputs[0]
    model, examples = subject.model(inputs).train(), subject.examples(inputs, 4)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    clipper = Clipper(model, "norm", optimizer=optimizer)
    with world(0):
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = _loss(model, examples)
            loss.backward()  # type: ignore[no-untyped-call]
            if not bool(torch.isfinite(loss)):
                yield f"step {step}: the loss is {float(loss):g}"
                return
            if not clipper.step().skipped:
                optimizer.step()
    if all(torch.equal(before[name], each) for name, each in model.named_parameters()):
        yield f"no parameter moves in {STEPS} steps"


def _loss(model: nn.Module, examples: Tensor) -> Tensor:
    """The mean squared error to fixed numbers."""
    found: Tensor = model(examples)
    targets = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    return (found - targets).square().mean()
