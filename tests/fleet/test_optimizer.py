"""A stacked optimizer makes, for every run, the steps of that run's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gclip.fleet.optimizer import StackedOptimizer
from gclip.training import RunConfig, optimizers

CPU = torch.device("cpu")
CASES = {
    "sgd": RunConfig(optimizer="sgd", momentum=0.9, weight_decay=0.01),
    "nesterov": RunConfig(optimizer="sgd", optimizer_settings={"nesterov": True}),
    "adam": RunConfig(optimizer="adam", weight_decay=0.01),
    "amsgrad": RunConfig(optimizer="adam", optimizer_settings={"amsgrad": True}),
    "adamw": RunConfig(optimizer="adamw", weight_decay=0.1),
    "rmsprop": RunConfig(optimizer="rmsprop", momentum=0.5),
    "adagrad": RunConfig(optimizer="adagrad", weight_decay=0.01),
}
SHAPES = [(4, 3), (5,), ()]


@pytest.mark.parametrize("rates", [(0.01, 0.01, 0.01), (0.003, 0.01, 0.2)], ids=["same", "own"])
@pytest.mark.parametrize("case", CASES)
def test_each_run_makes_its_own_steps(case: str, rates: tuple[float, ...]) -> None:
    config = CASES[case]
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(3, *shape, generator=generator) for shape in SHAPES]
    stacks = [nn.Parameter(each.clone()) for each in start]
    together = StackedOptimizer(config, stacks, CPU)
    single = [[nn.Parameter(each[run].clone()) for each in start] for run in range(3)]
    alone = [
        optimizers.build(
            config.optimizer, single[run], lr=rates[run], momentum=config.momentum,
            weight_decay=config.weight_decay, settings=config.settings,
        )
        for run in range(3)
    ]  # fmt: skip
    present = [0, 1, 2]
    for step in range(12):
        if step == 6:  # the middle one leaves; the others go on with what they remember
            present = [0, 2]
            left = [nn.Parameter(each.detach()[present].clone()) for each in stacks]
            together.keep(present, left)
            stacks = left
        factor = 0.5 if step % 4 == 3 else 1.0
        together.set_rates([factor * rates[run] for run in present])
        grads = [torch.randn(3, *shape, generator=generator) for shape in SHAPES]
        for stack, grad in zip(stacks, grads, strict=True):
            stack.grad = grad[present].clone()
        together.step()
        for run in present:
            for group in alone[run].param_groups:
                group["lr"] = factor * rates[run]
            for parameter, grad in zip(single[run], grads, strict=True):
                parameter.grad = grad[run].clone()
            alone[run].step()
        for place, run in enumerate(present):
            for stack, parameter in zip(stacks, single[run], strict=True):
                torch.testing.assert_close(
                    stack.detach()[place], parameter.detach(), rtol=1e-5, atol=1e-7
                )
