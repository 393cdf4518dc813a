"""A stacked optimizer makes, for every run, the steps of that run's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import gclip.training.fleet.optimizer as stacked
from gclip.training import RunConfig, optimizers
from gclip.training.fleet.optimizer import StackedOptimizer

CPU = torch.device("cpu")
CASES = {
    "sgd": RunConfig(optimizer="sgd", momentum=0.9, weight_decay=0.01),
    "dampened": RunConfig(optimizer="sgd", optimizer_settings={"dampening": 0.5}),
    "nesterov": RunConfig(optimizer="sgd", optimizer_settings={"nesterov": True}),
    "adam": RunConfig(optimizer="adam", weight_decay=0.01),
    "amsgrad": RunConfig(optimizer="adam", optimizer_settings={"amsgrad": True}),
    "adamw": RunConfig(optimizer="adamw", weight_decay=0.1),
    "rmsprop": RunConfig(optimizer="rmsprop", momentum=0.5),
    "adagrad": RunConfig(
        optimizer="adagrad", weight_decay=0.01, optimizer_settings={"lr_decay": 0.1}
    ),
}
SHAPES = [(4, 3), (5,), ()]
STEPS = 12
# For each step, which runs skip it.
NOBODY = [(False, False, False)] * STEPS
SOME = [(s % 3 == 2, s in (2, 8), s in (2, 7, 9)) for s in range(STEPS)]
FIRST = [(s == 0, False, s < 3) for s in range(STEPS)]
SAME, OWN = (0.01, 0.01, 0.01), (0.003, 0.01, 0.2)


class Fleet:
    """Three runs stacked, and the same three alone, over the same gradients."""

    def __init__(self, case: str, rates: tuple[float, ...]) -> None:
        config = CASES[case]
        self.chance = torch.Generator().manual_seed(0)
        start = [torch.randn(3, *shape, generator=self.chance) for shape in SHAPES]
        self.rates, self.present = rates, [0, 1, 2]
        self.stacks = [nn.Parameter(each.clone()) for each in start]
        self.together = StackedOptimizer(config, self.stacks, CPU)
        self.single = [[nn.Parameter(each[run].clone()) for each in start] for run in range(3)]
        self.alone = [
            optimizers.build(
                config.optimizer, self.single[run], lr=rates[run], momentum=config.momentum,
                weight_decay=config.weight_decay, settings=config.settings,
            )
            for run in range(3)
        ]  # fmt: skip

    def leave(self, present: list[int]) -> None:
        places = [self.present.index(run) for run in present]
        self.present = present
        self.stacks = [nn.Parameter(each.detach()[places].clone()) for each in self.stacks]
        self.together.select_runs(places, self.stacks)

    def rate(self, factor: float) -> None:
        self.together.set_rates([factor * self.rates[run] for run in self.present])
        for run in self.present:
            for group in self.alone[run].param_groups:
                group["lr"] = factor * self.rates[run]

    def gradients(self) -> None:
        grads = [torch.randn(3, *shape, generator=self.chance) for shape in SHAPES]
        for stack, grad in zip(self.stacks, grads, strict=True):
            stack.grad = grad[self.present].clone()
        for run in self.present:
            for parameter, grad in zip(self.single[run], grads, strict=True):
                parameter.grad = grad[run].clone()

    def step(self, skipped: tuple[bool, ...]) -> None:
        self.gradients()
        for run in self.present:
            if not skipped[run]:
                self.alone[run].step()
        self.together.step(torch.tensor([skipped[run] for run in self.present]))

    def check(self) -> None:
        for place, run in enumerate(self.present):
            for stack, parameter in zip(self.stacks, self.single[run], strict=True):
                torch.testing.assert_close(
                    stack.detach()[place], parameter.detach(), rtol=1e-5, atol=1e-7
                )


@pytest.mark.parametrize("skipped", [NOBODY, SOME, FIRST], ids=["nobody", "some", "first"])
@pytest.mark.parametrize("rates", [SAME, OWN], ids=["same", "own"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("looks", [True, False], ids=["host", "device"])
def test_each_run_makes_its_own_steps(
    case: str,
    rates: tuple[float, ...],
    skipped: list[tuple[bool, ...]],
    looks: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stacked, "on_host", lambda _: looks)
    fleet = Fleet(case, rates)
    for step in range(STEPS):
        if step == 6:  # the middle one leaves; the others go on with what they remember
            fleet.leave([0, 2])
        fleet.rate(0.5 if step % 4 == 3 else 1.0)
        before = [each.detach().clone() for each in fleet.stacks]
        fleet.step(skipped[step])
        fleet.check()
        for place, run in enumerate(fleet.present):
            if skipped[step][run]:
                for stack, kept in zip(fleet.stacks, before, strict=True):
                    assert torch.equal(stack.detach()[place], kept[place])


@pytest.mark.parametrize("rates", [SAME, OWN], ids=["same", "own"])
@pytest.mark.parametrize("case", CASES)
def test_steps_are_taken_back(case: str, rates: tuple[float, ...]) -> None:
    """What is skipped after the step leaves no trace in what is remembered, for these runs."""
    fleet = Fleet(case, rates)
    for step in range(8):
        fleet.rate(1.0)
        skipped = SOME[step] if step else (False, True, False)
        before = [each.detach().clone() for each in fleet.stacks]
        kept = [
            ([p.detach().clone() for p in single], copy.deepcopy(alone.state_dict()))
            for single, alone in zip(fleet.single, fleet.alone, strict=True)
        ]
        fleet.together.save(slice(0, 3))
        fleet.step((False, False, False))
        fleet.together.restore(torch.tensor(skipped))
        for run in range(3):
            if skipped[run]:
                weights, state = kept[run]
                fleet.alone[run].load_state_dict(state)
                with torch.no_grad():
                    for place, each in enumerate(weights):
                        fleet.single[run][place].copy_(each)
                        fleet.stacks[place][run] = before[place][run]
        fleet.check()


@pytest.mark.parametrize("rates", [SAME, OWN], ids=["same", "own"])
def test_parameters_stay_where_they_are(rates: tuple[float, ...]) -> None:
    """A recorded pass reads them from there."""
    fleet = Fleet("adam", rates)
    places = [each.data_ptr() for each in fleet.stacks]
    for step in range(4):
        fleet.rate(1.0)
        fleet.step(SOME[step])
    assert [each.data_ptr() for each in fleet.stacks] == places
